#!/usr/bin/env bash
# Writes the configuration of the host beside the source cluster and prints its firewall rules.
# Usage: bin/prepare_src_config.sh [--setenv FILE] [--out DIR] [--force]
set -euo pipefail

side=source
setenv=setenv.sh
out=.
force=()

usage() {
    sed -n '2,3s/^# //p' "$0"
}

while (($# > 0)); do
    case $1 in
        --setenv | --out)
            (($# > 1)) || { echo "error: $1 needs a value" >&2; exit 2; }
            if [[ $1 == --setenv ]]; then setenv=$2; else out=$2; fi
            shift 2
            ;;
        --force)
            force=(--force)
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            echo "error: unknown argument: $1" >&2
            usage >&2
            exit 2
            ;;
    esac
done

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
linkspan=
for candidate in "$(command -v linkspan || true)" ./linkspan "$root/linkspan" "$root/target/release/linkspan" "$root/target/debug/linkspan"; do
    if [[ -n $candidate && -f $candidate && -x $candidate ]]; then
        linkspan=$candidate
        break
    fi
done
if [[ -z $linkspan ]]; then
    echo "error: no linkspan binary in PATH, here, or in $root/target" >&2
    echo "  build it: cargo build --release --locked" >&2
    exit 2
fi
if [[ ! -f $setenv ]]; then
    echo "error: $setenv is not there" >&2
    echo "  begin with: cp $root/setenv.sh.template $setenv && chmod 600 $setenv" >&2
    exit 2
fi

exec "$linkspan" init "$side" --from-env "$setenv" --out "$out" ${force[@]+"${force[@]}"}
