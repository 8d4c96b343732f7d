# shellcheck shell=bash
# What tests/run, examples/hello/run and .ci/run share; to be sourced, with the checkout as the
# working directory. It does nothing by itself.

# The user as whom rootless builds are tested when the tests run as root.
readonly TEST_USER=rbuild-test

say() { printf '\n== %s\n' "$*"; }

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# need PROGRAM:PACKAGE … : installs the Debian packages of programs that are missing. Whoever may
# not install them is told what is missing.
need() {
  local pair missing=()
  for pair in "$@"; do
    has_program "${pair%%:*}" || missing+=("${pair#*:}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ]; then
    die "these Debian packages are needed: ${missing[*]}; as root: apt-get install ${missing[*]}"
  fi
  command -v apt-get >/dev/null || die "there is no apt-get; install: ${missing[*]}"
  say "installing ${missing[*]}"
  install_packages "${missing[@]}"
}

has_program() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null; }

# The packages docker-registry and podman want to run as services; only their programs are needed.
install_packages() {
  local policy=/usr/sbin/policy-rc.d made=0
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    made=1
  fi
  local status=0
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@"; } \
    </dev/null >/dev/null || status=$?
  [ $made = 0 ] || rm -f $policy
  [ $status = 0 ] || die "apt-get could not install $*"
  case " $* " in
    *" docker-registry "*) systemctl disable docker-registry >/dev/null 2>&1 || true ;;
  esac
  case " $* " in
    *" podman "*)
      systemctl disable podman.socket podman.service podman-auto-update.timer podman-restart.service \
        >/dev/null 2>&1 || true
      ;;
  esac
}

# A C compiler and a linker, which some crates' builds call.
need_compiler() {
  has_program cargo || PATH="$HOME/.cargo/bin:$PATH"
  has_program cargo || die "there is no cargo; install Rust from https://rustup.rs"
  need cc:gcc
  [ -e /usr/include/stdlib.h ] || need stdlib.h:libc6-dev
}

# Subordinate ids, which let a user's builds have files of many owners.
need_subordinate_ids() {
  local user=$1 file
  for file in subuid subgid; do
    grep -q "^$user:" /etc/$file 2>/dev/null && continue
    [ "$(id -u)" = 0 ] || die "$user has no subordinate ids; as root: usermod --add-${file}s 100000-165535 $user"
    usermod --add-${file}s 100000-165535 "$user"
  done
}

# The user for rootless tests runs programs that cargo made. Where it cannot come to the checkout
# (below /root, for one), they are made elsewhere.
reachable_target() {
  [ "$(id -u)" = 0 ] && [ -z "${CARGO_TARGET_DIR:-}" ] || return 0
  setpriv --reuid=65534 --regid=65534 --clear-groups test -x . 2>/dev/null && return 0
  export CARGO_TARGET_DIR=/var/cache/rbuild-target
}

# Where cargo puts what `cargo static` makes.
static_program() {
  printf '%s/x86_64-unknown-linux-gnu/release/rbuild' "$(realpath -m "${CARGO_TARGET_DIR:-target}")"
}

# An S3 server for the tests, which comes from Python's registry and stays beside what cargo makes.
readonly MOTO='moto[server]==5.2.5'

need_moto() {
  local home
  home=$(realpath -m "${CARGO_TARGET_DIR:-target}")/moto
  [ ! -e "$home/$MOTO" ] || return 0
  need python3:python3
  python3 -c 'import ensurepip, venv' 2>/dev/null || install_venv
  say "installing $MOTO"
  rm -rf "$home"
  python3 -m venv "$home" && "$home/bin/pip" install --quiet --disable-pip-version-check "$MOTO" ||
    die "pip could not install $MOTO into $home"
  # Complete only now.
  touch "$home/$MOTO"
}

install_venv() {
  [ "$(id -u)" = 0 ] || die "this Debian package is needed: python3-venv; as root: apt-get install python3-venv"
  install_packages python3-venv
}
