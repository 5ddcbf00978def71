#!/bin/sh
# What Ray runs in place of HAProxy; see wrapper.py.
exec "$SLUICE_PYTHON" -IS "${0%/*}/wrapper.py" "$@"
