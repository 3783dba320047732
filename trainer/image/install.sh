#!/bin/sh
# Installs what the trainer imports into the Python of the image's base, and leaves alone what the base was made for.
# Called by Dockerfile.trainer with auto (install torch if it cannot be imported), always or never.
set -eu
cd "$(dirname "$0")"
export PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PIP_BREAK_SYSTEM_PACKAGES=1 PIP_DISABLE_PIP_VERSION_CHECK=1
unset PIP_CONSTRAINT  # some CUDA images forbid other versions than theirs; numpy and torch are spared below

python3 -c 'import sys; v = sys.version_info[:2]; assert (3, 11) <= v < (3, 14), f"the base has Python {v}; 3.11 to 3.13 is needed"'

has() { python3 -c "import $1" > /dev/null 2>&1; }

case "$1" in
  always) install=yes ;;
  never) install=no ;;
  auto) if has torch; then install=no; else install=yes; fi ;;
  *) echo "INSTALL_TORCH=$1 is not known; use auto, always or never" >&2; exit 2 ;;
esac

cp requirements-trainer.txt wanted.txt
if [ "$install" = yes ]; then
  python3 -m pip install --quiet --constraint requirements-torch.txt "$(grep '^torch==' requirements-torch.txt)"
elif has numpy; then
  # the base's torch was built against the base's numpy
  grep -v '^numpy==' requirements-trainer.txt > wanted.txt
fi
# --no-deps: the list is complete but for torch, and no dependency of it may replace the base's torch
python3 -m pip install --quiet --no-deps --requirement wanted.txt
rm wanted.txt requirements-torch.txt requirements-trainer.txt install.sh

# Bytecode of everything, the base's torch included: without it each process of each pod would compile for seconds.
packages=$(python3 -c 'import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))')
python3 -m compileall -q -j 0 "$packages" > /dev/null || echo "some files of $packages are templates and cannot be compiled"
python3 -c 'import torch, transformers, numpy; print("torch", torch.__version__, "transformers", transformers.__version__, "numpy", numpy.__version__)'
