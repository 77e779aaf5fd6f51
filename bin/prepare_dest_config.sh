#!/usr/bin/env bash
# Writes the configuration of the host beside the destination cluster and prints its firewall rules.
# Usage: bin/prepare_dest_config.sh [--setenv FILE] [--out DIR] [--force]
set -euo pipefail
exec "$(dirname -- "${BASH_SOURCE[0]}")/prepare_config.sh" destination "$@"
