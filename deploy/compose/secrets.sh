#!/bin/sh
# Writes .env beside compose.yaml with random passwords, and shows the admin key once. What is there is left alone.
set -eu
cd "$(dirname "$0")"
random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
digest() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d' ' -f1; }
if [ -e .env ]; then
  echo "$(pwd)/.env is there already, and its passwords may be in use: nothing was changed" >&2
  exit 1
fi
key="eyl_live_$(random)"
umask 077
cat > .env <<END
REDIS_PASSWORD=$(random)
POSTGRES_PASSWORD=$(random)
SERVICE_PASSWORD=$(random)
S3_ACCESS_KEY=$(random | cut -c1-20)
S3_SECRET_KEY=$(random)
ADMIN_KEY_SHA256=$(printf %s "$key" | digest)
END
echo "Passwords are in $(pwd)/.env, which only you can read. The admin key, shown once and kept only as a hash:"
echo
echo "    $key"
