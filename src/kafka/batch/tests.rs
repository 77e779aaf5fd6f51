//! What the room promises, over made and captured bytes.

use proptest::prelude::*;

use super::header::{CRC_FROM, OVERHEAD};
use super::*;

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
const STAMP: Patch = Patch { producer_id: 4_000, epoch: 3, base_sequence: 17 };

/// One record, key `k`, value `v`, header `h`=`x`, as a Java producer without idempotence makes it and a broker stores it at 7.
fn stored() -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&7_i64.to_be_bytes());
    bytes.extend_from_slice(&62_i32.to_be_bytes());
    bytes.extend_from_slice(&5_i32.to_be_bytes());
    bytes.push(2);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&0_i16.to_be_bytes());
    bytes.extend_from_slice(&0_i32.to_be_bytes());
    bytes.extend_from_slice(&1_700_000_000_000_i64.to_be_bytes());
    bytes.extend_from_slice(&1_700_000_000_000_i64.to_be_bytes());
    bytes.extend_from_slice(&(-1_i64).to_be_bytes());
    bytes.extend_from_slice(&(-1_i16).to_be_bytes());
    bytes.extend_from_slice(&(-1_i32).to_be_bytes());
    bytes.extend_from_slice(&1_i32.to_be_bytes());
    bytes.extend_from_slice(&[24, 0, 0, 0, 2, b'k', 2, b'v', 2, 2, b'h', 2, b'x']);
    seal(&mut bytes);
    bytes
}

/// Writes the checksum that belongs to the bytes.
fn seal(bytes: &mut [u8]) {
    let crc = crc32c(&bytes[CRC_FROM..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
}

fn one(bytes: impl Into<Bytes>) -> RawBatch {
    split(bytes.into()).next().expect("a batch").expect("well formed")
}

fn records(count: i64) -> Vec<Record> {
    (0..count)
        .map(|n| Record::new(n, 1_000 + n, Some(format!("k{n}").as_bytes()), Some(&[n as u8; 50]), &[(b"h", None)]))
        .collect()
}

#[test]
fn a_header_is_read_field_by_field_and_written_back() {
    let bytes = stored();
    let header = Header::parse(&bytes).expect("61 bytes");
    assert_eq!((header.base_offset, header.length, header.partition_leader_epoch, header.count), (7, 62, 5, 1));
    assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (-1, -1, -1));
    assert_eq!(header.to_bytes(), bytes[..HEADER_LEN]);
    assert_eq!(Header::parse(&bytes[..60]), None);
    let flags = Header { attributes: 0x7c, ..header };
    assert_eq!(flags.codec(), Ok(Codec::Zstd));
    assert_eq!(flags.timestamp_type(), TimestampType::LogAppend);
    assert!(flags.is_transactional() && flags.is_control() && flags.has_delete_horizon());
    assert_eq!(Header { attributes: 5, ..header }.codec(), Err(5));
    assert!(header.is_without_holes());
    assert!(!Header { last_offset_delta: 7, count: 2, ..header }.is_without_holes());
    assert!(!Header { last_offset_delta: -1, count: 0, ..header }.is_without_holes());
}

#[test]
fn a_record_is_read_whole() {
    let record = Record::new(7, 1_700_000_000_000, Some(b"k"), Some(b"v"), &[(b"h", Some(b"x"))]);
    let read = decode(&one(stored()), Limits::default()).expect("readable");
    assert_eq!(read, [record]);
    assert_eq!((read[0].key().as_deref(), read[0].value().as_deref()), (Some(&b"k"[..]), Some(&b"v"[..])));
    assert_eq!(read[0].headers(), [(Bytes::from_static(b"h"), Some(Bytes::from_static(b"x")))]);
    let bare = Record::new(0, -1, None, None, &[]);
    assert_eq!((bare.key(), bare.value(), bare.headers()), (None, None, vec![]));
    assert_eq!(encode_one(&read, Codec::None, Patch::NO_PRODUCER).payload, stored()[HEADER_LEN..]);
}

#[test]
fn a_set_is_cut_into_batches_and_a_cut_one_ends_it_silently() {
    let whole = stored();
    let mut set = [&whole[..], &whole, &whole].concat();
    for lost in 1..=whole.len() {
        let mut batches = split(Bytes::copy_from_slice(&set[..set.len() - lost]));
        assert_eq!(batches.by_ref().map(|one| one.expect("well formed").next_offset()).collect::<Vec<_>>(), [8, 8]);
        assert_eq!(batches.left(), whole.len() - lost);
    }
    set[whole.len() + 16] = 3;
    let cut: Vec<_> = split(set.clone().into()).collect();
    assert_eq!(cut.len(), 2);
    assert_eq!(cut[1], Err(BatchError::Magic { at: whole.len(), magic: 3 }));
    set[whole.len() + 16] = 2;
    for length in [48, 0, -1] {
        set[whole.len() + 8..whole.len() + 12].copy_from_slice(&i32::to_be_bytes(length));
        let error = BatchError::Length { at: whole.len(), length, least: 49 };
        assert_eq!(split(set.clone().into()).nth(1), Some(Err(error)));
    }
}

#[test]
fn a_patched_header_is_what_produce_takes_and_its_checksum_is_that_of_all_bytes() {
    for size in (0..200).chain([1_000, 65_535, 65_536, 131_072, 299_999, 300_000]) {
        let mut bytes = stored();
        bytes.truncate(HEADER_LEN);
        bytes.extend((0..size).map(|n: u32| (n.wrapping_mul(0x9e37_79b1) >> 24) as u8));
        let length = (bytes.len() - OVERHEAD) as i32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        // Zstd, append time, transactional, delete horizon, bits 7 to 15.
        bytes[21..23].copy_from_slice(&0xffdc_u16.to_be_bytes());
        seal(&mut bytes);
        let batch = one(bytes.clone());
        let new = patch(&batch, &STAMP).expect("version 2");
        let header = Header::parse(&new).expect("61 bytes");
        let full = crc32c_of_parts(&[&new[CRC_FROM..], &bytes[HEADER_LEN..]]);
        assert_eq!(header.crc, full, "{size}");
        assert_eq!((header.base_offset, header.partition_leader_epoch, header.attributes), (0, -1, 4));
        assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (4_000, 3, 17));
        let old = batch.header().expect("version 2");
        assert_eq!((header.length, header.count, header.base_timestamp), (old.length, old.count, old.base_timestamp));
        assert_eq!((header.max_timestamp, header.last_offset_delta), (old.max_timestamp, old.last_offset_delta));
    }
}

#[test]
fn damage_before_the_patch_is_still_seen_after_it() {
    let mut bytes = stored();
    bytes[70] ^= 4;
    let damaged = one(bytes.clone());
    assert!(matches!(decode(&damaged, Limits::default()), Err(BatchError::Checksum { base_offset: 7, .. })));
    bytes[..HEADER_LEN].copy_from_slice(&patch(&damaged, &STAMP).expect("version 2"));
    assert!(matches!(one(bytes).verify(), Err(BatchError::Checksum { base_offset: 0, .. })));
}

#[test]
fn every_codec_round_trips_dense_and_in_order() {
    let records = records(300);
    for codec in CODECS {
        let encoded = encode_one(&records, codec, STAMP);
        let batch = one(encoded.to_bytes());
        batch.verify().expect("its own checksum");
        assert_eq!(is_dense(&batch, Limits::default()), Ok(true), "{codec:?}");
        assert_eq!(decode(&batch, Limits::default()), Ok(records.clone()), "{codec:?}");
        assert_eq!((encoded.count, encoded.last_offset), (300, 299));
        assert_eq!(batch.header().expect("version 2").codec(), Ok(codec));
    }
}

#[test]
fn a_split_keeps_the_order_the_limit_and_the_sequence() {
    let records = records(1_000);
    for codec in CODECS {
        let stamp = Patch { base_sequence: i32::MAX - 10, ..STAMP };
        let batches = encode(&records, codec, 3_000, stamp).expect("records are small");
        let mut back = Vec::new();
        let mut sequence = i64::from(stamp.base_sequence);
        for encoded in &batches {
            assert!(encoded.len() <= 3_000);
            let batch = one(encoded.to_bytes());
            assert_eq!(i64::from(batch.header().expect("version 2").base_sequence), sequence % (1 << 31));
            sequence += i64::from(encoded.count);
            let first = back.len() as i64;
            let read = decode(&batch, Limits::default()).expect("readable");
            back.extend(read.into_iter().map(|record| Record { offset: record.offset + first, ..record }));
        }
        assert_eq!(back, records, "{codec:?}");
    }
    assert_eq!(
        encode(&records, Codec::None, 100, STAMP),
        Err(BatchError::RecordTooLarge { offset: 0, size: 123, limit: 100 })
    );
    assert_eq!(encode(&[], Codec::None, 100, STAMP), Ok(vec![]));
}

#[test]
fn holes_and_lying_deltas_are_not_dense() {
    let records = records(3);
    let encoded = encode_one(&records, Codec::None, STAMP);
    let mut lying = encoded.to_bytes();
    let at = HEADER_LEN + lying[HEADER_LEN..].iter().position(|&byte| byte == b'k').expect("a key") - 2;
    assert_eq!(lying[at], 0);
    lying[at] = 2;
    seal(&mut lying);
    assert_eq!(is_dense(&one(lying), Limits::default()), Ok(false));
    let mut hole = encoded.to_bytes();
    hole[23..27].copy_from_slice(&9_i32.to_be_bytes());
    seal(&mut hole);
    assert_eq!(is_dense(&one(hole.clone()), Limits::default()), Ok(false));
    assert_eq!(decode(&one(hole), Limits::default()).expect("readable").len(), 3);
}

#[test]
fn append_time_stands_for_every_record() {
    let mut bytes = encode_one(&records(2), Codec::Lz4, STAMP).to_bytes();
    bytes[22] |= 8;
    bytes[35..43].copy_from_slice(&5_555_i64.to_be_bytes());
    seal(&mut bytes);
    let times = decode(&one(bytes), Limits::default()).expect("readable");
    assert!(times.iter().all(|record| record.timestamp == 5_555));
}

#[test]
fn an_emptied_batch_has_no_records() {
    let mut bytes = stored();
    bytes.truncate(HEADER_LEN);
    bytes[8..12].copy_from_slice(&49_i32.to_be_bytes());
    bytes[57..61].copy_from_slice(&0_i32.to_be_bytes());
    seal(&mut bytes);
    assert_eq!(decode(&one(bytes), Limits::default()), Ok(vec![]));
}

/// A message of magic 0 or 1, with its checksum.
fn old(magic: u8, attributes: u8, offset: i64, time: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Vec<u8> {
    let mut body = vec![magic, attributes];
    if magic == 1 {
        body.extend_from_slice(&time.to_be_bytes());
    }
    for field in [key, value] {
        body.extend_from_slice(&field.map_or(-1, |field| field.len() as i32).to_be_bytes());
        body.extend_from_slice(field.unwrap_or_default());
    }
    let mut crc = flate2::Crc::new();
    crc.update(&body);
    let length = (body.len() + 4) as i32;
    [&offset.to_be_bytes()[..], &length.to_be_bytes(), &crc.sum().to_be_bytes(), &body].concat()
}

#[test]
fn old_messages_are_told_apart_and_read() {
    let set = [old(0, 0, 3, 0, None, Some(b"v")), old(1, 0, 4, 99, Some(b"k"), None), stored()].concat();
    let batches: Vec<_> = split(set.into()).map(|one| one.expect("well formed")).collect();
    assert_eq!(batches.iter().map(RawBatch::magic).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(batches[0].header(), None);
    assert_eq!(patch(&batches[1], &STAMP), None);
    assert_eq!(is_dense(&batches[0], Limits::default()), Ok(false));
    let limits = Limits::default();
    assert_eq!(decode(&batches[0], limits), Ok(vec![Record::new(3, -1, None, Some(b"v"), &[])]));
    assert_eq!(decode(&batches[1], limits), Ok(vec![Record::new(4, 99, Some(b"k"), None, &[])]));
    let mut damaged = old(1, 0, 4, 99, Some(b"k"), None);
    damaged[30] ^= 1;
    assert!(matches!(decode(&one(damaged), limits), Err(BatchError::Checksum { .. })));
}

#[test]
fn old_wrappers_give_their_messages_the_right_offsets_and_times() {
    for (codec, number) in [(Codec::Gzip, 1_u8), (Codec::Snappy, 2), (Codec::Lz4, 3)] {
        // Relative offsets 0 and 2 (1 was compacted away), the wrapper at that of its last message.
        let inner = [old(1, 0, 0, 10, None, Some(b"a")), old(1, 0, 2, 11, None, Some(b"b"))].concat();
        let inner = compress::close(codec, inner);
        let expected = |times: [i64; 2]| {
            Ok(vec![Record::new(40, times[0], None, Some(b"a"), &[]), Record::new(42, times[1], None, Some(b"b"), &[])])
        };
        let limits = Limits::default();
        assert_eq!(decode(&one(old(1, number, 42, 11, None, Some(&inner))), limits), expected([10, 11]));
        assert_eq!(decode(&one(old(1, number | 8, 42, 77, None, Some(&inner))), limits), expected([77, 77]));

        let inner = [old(0, 0, 40, 0, None, Some(b"a")), old(0, 0, 42, 0, None, Some(b"b"))].concat();
        let mut inner = compress::close(codec, inner);
        if codec == Codec::Lz4 {
            inner[6] ^= 0x55;
        }
        assert_eq!(decode(&one(old(0, number, 42, 0, None, Some(&inner))), limits), expected([-1, -1]));
    }
}

#[test]
fn another_implementation_reads_what_is_written() {
    use kafka_protocol::records::RecordBatchDecoder;
    let records = records(20);
    let mut bytes = Bytes::from(encode_one(&records, Codec::None, STAMP).to_bytes());
    let set = RecordBatchDecoder::decode(&mut bytes).expect("readable");
    assert_eq!(set.records.len(), 20);
    for (theirs, ours) in set.records.iter().zip(&records) {
        assert_eq!((theirs.offset, theirs.timestamp), (ours.offset, ours.timestamp));
        assert_eq!((theirs.key.clone(), theirs.value.clone()), (ours.key(), ours.value()));
        assert_eq!((theirs.producer_id, theirs.producer_epoch), (4_000, 3));
        assert_eq!(theirs.headers.len(), 1);
    }
}

/// Everything that may be done with bytes from a network; must end, without panic, within the limits.
fn open_anything(bytes: Bytes) {
    let limits = Limits { bytes: 1 << 20, ratio: 100 };
    for batch in split(bytes) {
        let Ok(batch) = batch else { break };
        let _ = (batch.offset(), batch.next_offset(), batch.header(), patch(&batch, &STAMP));
        let _ = is_dense(&batch, limits);
        let _ = decode(&batch, limits);
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        open_anything(bytes.into());
    }

    #[test]
    fn damaged_batches_under_a_right_checksum_never_panic(
        codec in 0_usize..5,
        hits in proptest::collection::vec((12_usize..400, any::<u8>()), 1..6),
    ) {
        let mut bytes = encode_one(&records(6), CODECS[codec], STAMP).to_bytes();
        let length = bytes.len();
        for (at, byte) in hits {
            bytes[at % length] = byte;
        }
        seal(&mut bytes);
        open_anything(bytes.into());
    }

    #[test]
    fn damaged_old_messages_under_a_right_checksum_never_panic(
        magic in 0_u8..2, attributes: u8, value in proptest::collection::vec(any::<u8>(), 0..80), cut in 0_usize..90,
    ) {
        let mut inner = old(magic, 0, 1, 2, None, Some(&value));
        inner.truncate(inner.len().saturating_sub(cut).max(1));
        let codec = CODECS[(attributes & 3) as usize];
        let wrapper = old(magic, attributes, 9, 2, Some(&value), Some(&compress::close(codec, inner)));
        open_anything(wrapper.into());
    }

    #[test]
    fn records_come_back_whatever_they_are(
        parts in proptest::collection::vec(
            (any::<i64>(), proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
             proptest::option::of(proptest::collection::vec(any::<u8>(), 0..60))), 1..20),
        codec in 0_usize..5,
    ) {
        let records: Vec<_> = parts.iter().enumerate()
            .map(|(n, (time, key, value))| {
                Record::new(n as i64, time >> 2, key.as_deref(), value.as_deref(), &[(b"a", key.as_deref())])
            })
            .collect();
        let batch = one(encode_one(&records, CODECS[codec], Patch::NO_PRODUCER).to_bytes());
        prop_assert_eq!(decode(&batch, Limits::default()), Ok(records));
    }
}
