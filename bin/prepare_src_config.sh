#!/usr/bin/env bash
# Writes the configuration of the host beside the source cluster and prints its firewall rules.
# Usage: bin/prepare_src_config.sh [--setenv FILE] [--out DIR] [--force]
set -euo pipefail
exec "$(dirname -- "${BASH_SOURCE[0]}")/prepare_config.sh" source "$@"
