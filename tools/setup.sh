# Sourced by ./dev: installs what is missing, and says so. Runs on Debian 12, as root or with sudo.
# Nothing is fetched but Debian packages, the pinned Python packages of tools/requirements.txt, and the
# pinned sources of tools/sources.txt.

# What it takes to build and to serve.
build_packages=(
  ca-certificates ccache cmake g++ libabsl-dev libbenchmark-dev libboost-dev libboost-system-dev
  libcli11-dev libfmt-dev libgmock-dev libgrpc++-dev libgtest-dev libhwloc-dev libopenmpi-dev
  libpcre2-dev libprotobuf-dev libspdlog-dev libssl-dev libutf8proc-dev libyaml-cpp-dev
  ninja-build nlohmann-json3-dev openmpi-bin pkg-config prometheus-cpp-dev protobuf-compiler
  protobuf-compiler-grpc python3 python3-venv
)
test_packages=(chromium git openssl)
clang_packages=(clang clang-format clang-tidy libclang-rt-14-dev)

say() { printf '[dev] %s\n' "$*"; }
fail() { printf '[dev] error: %s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "need root or sudo to run: $*"
  fi
}

is_installed() {
  [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# install_packages NAME...: those that are missing, in one apt run; nothing when none is.
install_packages() {
  local package missing=()
  for package in "$@"; do
    is_installed "$package" || missing+=("$package")
  done
  [ "${#missing[@]}" -eq 0 ] && return 0
  command -v apt-get >/dev/null || fail "no apt-get here; install by hand: ${missing[*]}"
  say "installing ${#missing[@]} Debian packages: ${missing[*]}"
  as_root apt-get update --quiet --quiet
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install --quiet --quiet --yes \
    --no-install-recommends "${missing[@]}"
}

system_python() {
  if [ -x /usr/bin/python3 ]; then echo /usr/bin/python3; else command -v python3; fi
}

# The one library that Debian lacks, as its authors' source archive, which pip checks against its hash.
# To name an archive's version pip runs its build backend, which therefore is installed first.
fetch_sources() {
  local folder=build/third_party
  if cmp --silent tools/sources.txt "$folder/sources.txt"; then
    return 0
  fi
  say "fetching the sources of tools/sources.txt into $folder"
  rm --recursive --force "$folder"
  mkdir --parents "$folder"
  "$(system_python)" -m venv "$folder/venv"
  local pip=("$folder/venv/bin/pip" --quiet --disable-pip-version-check)
  "${pip[@]}" install --require-hashes --no-deps --requirement tools/sources_backend.txt
  "${pip[@]}" download --require-hashes --no-deps --no-binary :all: --no-build-isolation \
    --dest "$folder" --requirement tools/sources.txt
  tar --extract --directory "$folder" --file "$folder"/xgrammar-*.tar.gz
  rm "$folder"/xgrammar-*.tar.gz
  mv "$folder"/xgrammar-* "$folder/xgrammar"
  rm --recursive --force "$folder/venv"
  cp tools/sources.txt "$folder/sources.txt"
}

# promtool checks /metrics in a test. It is taken out of its package without installing that, because
# installing would start a Prometheus server.
fetch_promtool() {
  if command -v promtool >/dev/null || [ -x build/tools/promtool ]; then
    return 0
  fi
  say "taking promtool out of the Debian package prometheus into build/tools"
  mkdir --parents build/tools
  (
    cd build/tools
    # Where apt-get has just installed something its lists are fresh; else they may be missing.
    apt-get download --quiet --quiet prometheus 2>/dev/null || {
      as_root apt-get update --quiet --quiet
      apt-get download --quiet --quiet prometheus
    }
    dpkg-deb --fsys-tarfile prometheus_*.deb | tar --extract ./usr/bin/promtool
    mv usr/bin/promtool promtool
    rm --recursive --force usr prometheus_*.deb
  )
}

# make_venv [FOLDER REQUIREMENTS]: FOLDER holds exactly these packages; it is made anew when that file changes. Without
# arguments it is build/venv, for tools/requirements.txt.
make_venv() {
  local folder=${1:-build/venv} requirements=${2:-tools/requirements.txt}
  local stamp=$folder/requirements.txt
  if [ -f "$stamp" ] && cmp --silent "$requirements" "$stamp"; then
    return 0
  fi
  say "installing the Python packages of $requirements into $folder"
  mkdir --parents build
  rm --recursive --force "$folder"
  "$(system_python)" -m venv "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements"
  cp "$requirements" "$stamp"
}
