#!/usr/bin/env bash
# What prepare_src_config.sh and prepare_dest_config.sh share: finds the binary and hands over to `linkspan init`.
# Usage: bin/prepare_config.sh source|destination [--setenv FILE] [--out DIR] [--force]
set -euo pipefail

case ${1:-} in
    source) side=source caller=prepare_src_config.sh ;;
    destination) side=destination caller=prepare_dest_config.sh ;;
    *)
        sed -n '3s/^# //p' "$0" >&2
        exit 2
        ;;
esac
shift
setenv=setenv.sh
out=.
force=()

usage() {
    echo "Writes the configuration of the host beside the $side cluster and prints its firewall rules."
    echo "Usage: bin/$caller [--setenv FILE] [--out DIR] [--force]"
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
