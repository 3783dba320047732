#!/bin/bash
# Puts headless Chromium on a Debian machine, for the test that looks at report.html. Does nothing where it is already.
set -euo pipefail
command -v chromium >/dev/null && exit 0
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
  echo "chromium is missing and cannot be installed here (needs root and apt-get); install it yourself" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get install --yes --no-install-recommends --quiet chromium fonts-dejavu-core >/dev/null ||
  { apt-get update --quiet >/dev/null && apt-get install --yes --no-install-recommends --quiet chromium fonts-dejavu-core >/dev/null; }
command -v chromium >/dev/null
