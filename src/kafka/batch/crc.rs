//! CRC-32C, and its change from a difference in front of bytes that nobody reads.
//!
//! Over a payload it runs only where a batch is opened or written anew; a passing batch needs 40 bytes of it and about a dozen
//! polynomial products. So a table of 16 slices (2 to 3 GB/s) is enough, and no crate with `unsafe` is needed.

/// CRC-32C of the bytes, as Kafka stores it.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c_of_parts(&[bytes])
}

/// CRC-32C of several parts, one after the other.
#[must_use]
pub fn crc32c_of_parts(parts: &[&[u8]]) -> u32 {
    !parts.iter().fold(!0, |state, part| raw(state, part))
}

/// The checksum after the first bytes were changed by `difference` (old xor new), with `tail` unread bytes behind them.
///
/// A CRC is linear: two inputs of one length differ by the raw CRC of their difference, here followed by `tail` zero bytes.
pub(super) fn patched(crc: u32, difference: &[u8], tail: usize) -> u32 {
    crc ^ shift(raw(0, difference), tail)
}

/// The state after the bytes: no initial value, no final inversion.
fn raw(mut state: u32, bytes: &[u8]) -> u32 {
    let mut blocks = bytes.chunks_exact(16);
    for block in &mut blocks {
        let head = state ^ u32::from_le_bytes([block[0], block[1], block[2], block[3]]);
        let mut next = TABLES[15][(head & 0xff) as usize]
            ^ TABLES[14][(head >> 8 & 0xff) as usize]
            ^ TABLES[13][(head >> 16 & 0xff) as usize]
            ^ TABLES[12][(head >> 24) as usize];
        for (slice, &byte) in block[4..].iter().enumerate() {
            next ^= TABLES[11 - slice][byte as usize];
        }
        state = next;
    }
    for &byte in blocks.remainder() {
        state = state >> 8 ^ TABLES[0][((state ^ u32::from(byte)) & 0xff) as usize];
    }
    state
}

/// The raw state after `bytes` further zero bytes: its product with x^(8 * bytes).
fn shift(state: u32, bytes: usize) -> u32 {
    let mut product = state;
    for (bit, &power) in POWERS.iter().enumerate() {
        if bytes >> bit & 1 == 1 {
            product = multiply(power, product);
        }
    }
    product
}

/// Product of two polynomials modulo the generator, bits reflected: bit 31 is x^0.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 1 << 31;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = if b & 1 == 1 { b >> 1 ^ GENERATOR } else { b >> 1 };
        bit >>= 1;
    }
    product
}

/// Castagnoli's polynomial, bits reflected.
const GENERATOR: u32 = 0x82f6_3b78;

/// x^(8 * 2^k): enough for 2^32 bytes, and a batch has at most 2^31.
const POWERS: [u32; 32] = {
    let mut powers = [0; 32];
    let mut power = 1 << 23;
    let mut k = 0;
    while k < 32 {
        powers[k] = power;
        power = multiply(power, power);
        k += 1;
    }
    powers
};

/// `TABLES[n][b]`: raw state after byte `b` and `n` zero bytes.
static TABLES: [[u32; 256]; 16] = {
    let mut tables = [[0; 256]; 16];
    let mut byte = 0;
    while byte < 256 {
        let mut state = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            state = if state & 1 == 1 { state >> 1 ^ GENERATOR } else { state >> 1 };
            bit += 1;
        }
        tables[0][byte] = state;
        byte += 1;
    }
    let mut slice = 1;
    while slice < 16 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[slice - 1][byte];
            tables[slice][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        slice += 1;
    }
    tables
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn is_the_castagnoli_checksum() {
        assert_eq!(crc32c(b""), 0);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
    }

    #[test]
    fn a_difference_in_front_is_carried_over_any_length_from_0_to_300_kb() {
        let payload: Vec<u8> = (0..300_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let old = *b"forty bytes stand before each payload...";
        let new = *b"and forty others take their place: after";
        let difference: Vec<u8> = old.iter().zip(&new).map(|(a, b)| a ^ b).collect();
        for tail in (0..260).chain((260..300_000).step_by(9_973)).chain([65_535, 65_536, 300_000]) {
            let before = crc32c_of_parts(&[&old, &payload[..tail]]);
            let after = crc32c_of_parts(&[&new, &payload[..tail]]);
            assert_eq!(patched(before, &difference, tail), after, "{tail}");
        }
    }

    proptest! {
        #[test]
        fn parts_do_not_matter(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0_usize..200) {
            let cut = cut.min(bytes.len());
            prop_assert_eq!(crc32c(&bytes), crc32c_of_parts(&[&bytes[..cut], &bytes[cut..]]));
        }
    }
}
