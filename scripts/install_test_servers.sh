#!/bin/sh
# Install the servers that the tests talk to, and the browser that they look with, from Debian's packages, where that is
# allowed.
# Ends with 0 in any case: without them those tests are skipped, and pytest lists them under "not run".
set -u

say() { echo "test servers: $*"; }

without() {
    say "$1"
    say "not installed:$missing"
    case "$missing" in *postgresql*) say "NOT RUN will be: tests on a STAC API (PostgreSQL with PostGIS)" ;; esac
    case "$missing" in *radosgw* | *ceph*) say "NOT RUN will be: tests on S3 (Ceph RGW)" ;; esac
    case "$missing" in *chromium*) say "NOT RUN will be: tests of the UI in a browser (Chromium)" ;; esac
    exit 0
}

look() {
    missing=""
    # Debian names the PostGIS package by PostgreSQL's version; any of them will do.
    if ! ls /usr/share/postgresql/*/extension/postgis.control >/dev/null 2>&1; then
        missing="$missing postgresql-postgis"
    fi
    for package in radosgw ceph-mon ceph-osd ceph-common; do
        state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || state=absent
        [ "$state" = installed ] || missing="$missing $package"
    done
    # The tests look for the program, which need not be Debian's.
    command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
}

look
if [ -z "$missing" ]; then
    say "all there"
    exit 0
fi

command -v apt-get >/dev/null 2>&1 || without "this is not Debian or Ubuntu (no apt-get)"
if [ "$(id -u)" = 0 ]; then
    as_root="env"
elif sudo -n true 2>/dev/null; then
    as_root="sudo -n env"
else
    without "needs root, or sudo without a password"
fi

# $as_root and $missing are lists of words. On Debian the package postgresql-postgis depends on the current version's.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086
install() { $as_root DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >"$log" 2>&1; }
# shellcheck disable=SC2086
if ! install $missing; then
    $as_root apt-get update -q >/dev/null 2>&1
    # One group at a time, so that one that does not exist here does not take the other with it.
    for package in $missing; do
        install "$package" || { say "$package cannot be installed:"; tail -n 3 "$log"; }
    done
fi
look
[ -z "$missing" ] || without "some packages could not be installed"
say "installed"
