#!/bin/sh
# Installs a release of rbuild: downloads the static program and its checksum, compares them, and copies the program.
#
#   install.sh [--version VERSION] [--to DIRECTORY]
#
# VERSION is such as 0.1.0; the default is the latest release. DIRECTORY is /usr/local/bin by default.
# RBUILD_RELEASES is the URL below which releases are: …/latest/download/FILE and …/download/vVERSION/FILE.
set -eu

# The release workflow writes the URL of the repository here.
releases=${RBUILD_RELEASES:-}
version=
directory=/usr/local/bin

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

while [ $# -gt 0 ]; do
  case $1 in
    --version | --to) [ $# -ge 2 ] || die "$1 needs a value" ;;
  esac
  case $1 in
    --version) version=${2#v}; shift ;;
    --to) directory=$2; shift ;;
    -h | --help) sed -n '2,7s/^#\( \|$\)//p' "$0"; exit 0 ;;
    *) die "unknown argument: $1" ;;
  esac
  shift
done

[ -n "$releases" ] || die "RBUILD_RELEASES is not set: give the URL of the releases"
[ "$(uname -s)" = Linux ] || die "rbuild runs on Linux only, and this is $(uname -s)"
case $(uname -m) in
  x86_64) name=rbuild-x86_64-linux ;;
  *) die "there is no release for $(uname -m): build rbuild from its sources" ;;
esac
case $version in
  '') from=${releases%/}/latest/download ;;
  *) from=${releases%/}/download/v$version ;;
esac

fetch() {
  if command -v curl >/dev/null; then
    curl --fail --silent --show-error --location --output "$2" "$1"
  elif command -v wget >/dev/null; then
    wget --quiet --output-document="$2" "$1"
  else
    die "curl or wget is needed"
  fi || die "cannot download $1"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fetch "$from/$name" "$work/$name"
fetch "$from/$name.sha256" "$work/$name.sha256"

command -v sha256sum >/dev/null || die "sha256sum is needed"
want=$(cut -d ' ' -f 1 "$work/$name.sha256")
found=$(sha256sum "$work/$name" | cut -d ' ' -f 1)
[ "$want" = "$found" ] ||
  die "the checksum of $from/$name is $found, but $name.sha256 says $want: nothing was installed"

mkdir -p "$directory" || die "cannot create $directory"
# A rename replaces a program that runs; the temporary name is in the same directory.
cp "$work/$name" "$directory/.rbuild.$$" && chmod 755 "$directory/.rbuild.$$" &&
  mv "$directory/.rbuild.$$" "$directory/rbuild" ||
  die "cannot write $directory/rbuild: run this as root, or give --to DIRECTORY"
printf 'installed %s, %s\n' "$directory/rbuild" "$("$directory/rbuild" version)"
