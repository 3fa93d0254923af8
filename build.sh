#!/usr/bin/env bash
# Builds, tests and serves munjang. `./build.sh` alone lists the commands.
#
# Everything that is needed and missing is installed on the way: rustup's wasm32 target, and, into
# .tools/ (ignored by git), wasm-bindgen, binaryen and the browser driver's JavaScript.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

TOOLS="$PWD/.tools"
TARGET=wasm32-unknown-unknown
# What optimizes WebAssembly, and the hash of its package.
BINARYEN=131.0.0
BINARYEN_INTEGRITY='sha512-anblNezmBjfWGfOMvZq1j5MwhVnMs+gezqbDz4FBFwx6twDwOsQSed+E8i4UKmLYXb3r+f3HWmz7Lx5sx5qOyQ=='
# Brotli bytes that must not be exceeded: by a .wasm file that every page loads, and by one that only
# models with other tokenizers need.
WASM_LIMIT=250000
GENERAL_WASM_LIMIT=800000

say() { printf '\033[1m▸ %s\033[0m\n' "$*" >&2; }
fail() { printf '\033[31m✗ %s\033[0m\n' "$*" >&2; exit 1; }

# Runs a command quietly; its output is shown only if it fails.
quiet() {
  local log
  log=$(mktemp)
  if ! "$@" >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    fail "failed: $*"
  fi
  rm -f "$log"
}

need() { command -v "$1" >/dev/null 2>&1 || fail "$1 is needed: $2"; }

# ── Tools ─────────────────────────────────────────────────────────────────────────────────────────

# Debian's packages, where this user may install them.
apt_install() {
  command -v apt-get >/dev/null 2>&1 || return 1
  local sudo=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || return 1
    sudo=(sudo)
  fi
  "${sudo[@]}" apt-get update -qq >/dev/null 2>&1 || true
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq "$@" >/dev/null 2>&1
}

# The sources of the standard library from Debian's package of rustc's own version, for machines
# that cannot download rustup's components.
std_sources_from_debian() {
  local release work origin version
  release=$(rustc --version | cut -d' ' -f2)
  work=$(mktemp -d)
  # The mirror that this machine already uses, with the suite that has current compilers.
  # shellcheck disable=SC2016 # apt's own placeholder
  origin=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
    awk '$1 !~ /security/ { print $2; exit }')
  [ -n "$origin" ] || return 1
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $origin trixie-backports main" \
    >"$work/sources.list"
  mkdir -p "$work/lists/partial"
  local options=(-o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$work/lists")
  apt-get "${options[@]}" update || return 1
  version=$(apt-cache "${options[@]}" madison rust-src | awk -F' *\\| *' '{print $2}' |
    grep -m 1 "^$release+")
  [ -n "$version" ] || return 1
  (cd "$work" && apt-get "${options[@]}" download "rust-src=$version" && dpkg -x rust-src_*.deb src) ||
    return 1
  local library
  library="$work/src/usr/lib/rustlib/src/rust/library"
  [ -f "$library/Cargo.lock" ] && [ -d "$library/std" ] || return 1
  mkdir -p "$(rustc --print sysroot)/lib/rustlib/src/rust"
  cp -r "$library" "$(rustc --print sysroot)/lib/rustlib/src/rust/" || return 1
  rm -rf "$work"
}

# Sets CARGO_WASM and WASM_ENV to the arguments and variables that make cargo build for WebAssembly.
CARGO_WASM=()
WASM_ENV=()
ensure_wasm_target() {
  need rustc "install Rust from rustup"
  local sysroot
  sysroot=$(rustc --print sysroot)
  if [ -d "$sysroot/lib/rustlib/$TARGET/lib" ]; then
    return
  fi
  # Asked once only: where rustup cannot download, it takes its time to find out.
  if [ ! -f "$TOOLS/std-from-source" ]; then
    say "Adding the $TARGET target"
    # rustup may believe that it is there when it is not, so the folder has the last word.
    if command -v rustup >/dev/null 2>&1 && rustup target add "$TARGET" >/dev/null 2>&1 &&
      [ -d "$sysroot/lib/rustlib/$TARGET/lib" ]; then
      return
    fi
  fi
  if [ ! -f "$sysroot/lib/rustlib/src/rust/library/Cargo.lock" ]; then
    say "rustup cannot download it; building the standard library from Debian's rust-src instead"
    quiet std_sources_from_debian
  fi
  mkdir -p "$TOOLS"
  touch "$TOOLS/std-from-source"
  # build-std is not stable yet; this is the switch that lets a stable compiler use it. Only there:
  # crates that ask for it would be built anew.
  WASM_ENV=(RUSTC_BOOTSTRAP=1)
  CARGO_WASM=('-Zbuild-std=std,panic_abort')
}

ensure_wasm_bindgen() {
  local version
  version=$(grep -A 1 '^name = "wasm-bindgen"$' Cargo.lock | grep version | cut -d'"' -f2)
  export PATH="$TOOLS/bin:$PATH"
  if [ "$("$TOOLS/bin/wasm-bindgen" --version 2>/dev/null)" != "wasm-bindgen $version" ]; then
    say "Installing wasm-bindgen $version (a few minutes, once)"
    # A debug build of the tool compiles in a third of the time and is fast enough.
    local install=(cargo install wasm-bindgen-cli --version "$version" --debug --root "$TOOLS")
    if ! "${install[@]}" --locked >/dev/null 2>&1; then
      say "Not all versions that it locks can be had here; taking those that its manifest allows"
      quiet "${install[@]}"
    fi
  fi
}

ensure_binaryen() {
  need npm "install Node.js 20 or newer"
  if [ ! -x "$TOOLS/node_modules/.bin/wasm-opt" ] ||
    ! grep -q "\"version\": \"$BINARYEN\"" "$TOOLS/node_modules/binaryen/package.json"; then
    say "Installing binaryen $BINARYEN"
    mkdir -p "$TOOLS"
    local package='"name": "munjang-tools", "dependencies": { "binaryen": "'$BINARYEN'" }'
    echo "{ $package }" >"$TOOLS/package.json"
    # A lock makes npm compare the hash.
    cat >"$TOOLS/package-lock.json" <<JSON
{ "name": "munjang-tools", "lockfileVersion": 3, "requires": true, "packages": { "": { $package },
  "node_modules/binaryen": { "version": "$BINARYEN", "integrity": "$BINARYEN_INTEGRITY",
    "bin": { "wasm-opt": "bin/wasm-opt" } } } }
JSON
    quiet npm ci --prefix "$TOOLS" --ignore-scripts --no-audit --no-fund
  fi
}

# Sets CHROMIUM to a browser.
ensure_chromium() {
  local name
  for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable; do
    if [ -n "$name" ] && command -v "$name" >/dev/null 2>&1; then
      CHROMIUM=$(command -v "$name")
      export CHROMIUM
      return
    fi
  done
  say "Installing chromium"
  apt_install chromium fonts-noto-cjk || fail "no Chromium found; install it or set CHROMIUM to its path"
  CHROMIUM=$(command -v chromium)
  export CHROMIUM
}

ensure_test_packages() {
  need npm "install Node.js 20 or newer"
  if [ ! -d tests/node_modules ] || [ tests/package-lock.json -nt tests/node_modules ]; then
    say "Installing the tests' JavaScript packages"
    quiet npm ci --prefix tests --ignore-scripts --no-audit --no-fund
    touch tests/node_modules
  fi
}

# ── WebAssembly ───────────────────────────────────────────────────────────────────────────────────

wasm_flags() {
  case $1 in
    simd) echo '-C target-feature=+simd128' ;;
    relaxed) echo '-C target-feature=+simd128,+relaxed-simd' ;;
  esac
}

# Runs cargo for one SIMD build ($1), each in a target folder of its own: their flags differ.
cargo_wasm() {
  local build=$1
  shift
  env ${WASM_ENV[@]+"${WASM_ENV[@]}"} \
    RUSTFLAGS="$(wasm_flags "$build") --cfg getrandom_backend=\"wasm_js\"" \
    CARGO_TARGET_DIR="target/$build" cargo "$@" --locked --target "$TARGET" \
    ${CARGO_WASM[@]+"${CARGO_WASM[@]}"}
}

# What else than files the WebAssembly build is made of; kept beside what it made.
WASM_MADE_BY=pkg/wasm/made-by.txt
wasm_made_by() {
  rustc --version
  grep -A 1 '^name = "wasm-bindgen"$' Cargo.lock
  echo "binaryen $BINARYEN"
}

# Whether nothing that the WebAssembly build is made of is newer than $1, or another than it was then.
wasm_is_fresh() {
  [ -f "$1" ] && [ -f "$WASM_MADE_BY" ] && diff -q "$WASM_MADE_BY" <(wasm_made_by) >/dev/null && [ -z "$(find src Cargo.toml Cargo.lock build.sh \
    \( -path src/train -o -path src/bin -o -path src/convert \) -prune -o -type f -newer "$1" -print -quit)" ]
}

# The package's .wasm file for one SIMD build ($1) and, as $2, `slim` or `general`.
wasm_file() {
  case $2 in
    slim) echo "pkg/wasm/munjang_$1.wasm" ;;
    general) echo "pkg/wasm/munjang_general_$1.wasm" ;;
  esac
}

# Makes the JavaScript that wasm-bindgen wrote a module, each call of whose export makes an instance
# of its own.
make_glue() {
  sed '1s/^let wasm_bindgen = (function(exports) {$/export default () => (function(exports) {/' "$1"
}

wasm_build() {
  local build=$1 kind=$2 out raw="target/$1/$TARGET/wasm/munjang.wasm" work="target/$1/bound" with=()
  out=$(wasm_file "$build" "$kind")
  if wasm_is_fresh "$out"; then
    return
  fi
  say "Building WebAssembly: $build, $kind"
  [ "$kind" = general ] && with=(--features general-tokenizers)
  # Only here: whoever uses the crate wants no C library.
  quiet cargo_wasm "$build" rustc --lib --crate-type cdylib --profile wasm ${with[@]+"${with[@]}"}
  rm -rf "$work"
  mkdir -p pkg/wasm
  quiet wasm-bindgen --target no-modules --no-typescript --out-dir "$work" --out-name munjang "$raw"
  make_glue "$work/munjang.js" >"$work/glue.js"
  grep -q '^export default () =>' "$work/glue.js" || fail "wasm-bindgen writes its JavaScript in another way than expected"
  # One file serves all: the general code asks for what the slim code asks for, and more.
  if [ "$build $kind" = "simd general" ]; then
    cp "$work/glue.js" pkg/wasm/munjang.js
  elif grep '^<' <(diff "$work/glue.js" pkg/wasm/munjang.js) >&2; then
    fail "the WebAssembly builds need different JavaScript"
  fi
  # Nothing lies below 1,024: the stack ends at 0, and what calls that deep has overflowed it. So constants
  # can go into the loads' offsets.
  local features=(--low-memory-unused --enable-simd --enable-bulk-memory --enable-nontrapping-float-to-int
    --enable-sign-ext --enable-mutable-globals --enable-reference-types --enable-multivalue)
  [ "$build" = relaxed ] && features+=(--enable-relaxed-simd)
  quiet "$TOOLS/node_modules/.bin/wasm-opt" -O3 "${features[@]}" --strip-debug --strip-producers \
    "$work/munjang_bg.wasm" -o "$out"
}

build_wasm() {
  local kind build fresh=1
  for kind in general slim; do
    for build in simd relaxed; do
      wasm_is_fresh "$(wasm_file $build $kind)" || fresh=
    done
  done
  if [ -n "$fresh" ]; then
    return
  fi
  ensure_wasm_target
  ensure_wasm_bindgen
  ensure_binaryen
  # What another version may have left.
  rm -f pkg/wasm/munjang_*.js
  # Files of other tools are no longer fresh from here on.
  mkdir -p pkg/wasm
  if ! diff -q "$WASM_MADE_BY" <(wasm_made_by) >/dev/null 2>&1; then
    rm -f pkg/wasm/*.wasm
    wasm_made_by >"$WASM_MADE_BY"
  fi
  # The general simd build first: its JavaScript is everyone's.
  for kind in general slim; do
    for build in simd relaxed; do
      wasm_build $build $kind
    done
  done
}

# ── Commands ──────────────────────────────────────────────────────────────────────────────────────

command_wasm() { build_wasm; }

# Puts what the package ships beside its code: wasm files and the default model.
stage_package() {
  need node "install Node.js 20 or newer"
  build_wasm
  if [ ! -f pkg/model/model.js ] ||
    [ -n "$(find models LICENSE-* pkg/prepare.mjs -newer pkg/model/model.js -print -quit)" ]; then
    quiet node pkg/prepare.mjs
  fi
}

command_pkg() {
  stage_package
  node - "$WASM_LIMIT" "$GENERAL_WASM_LIMIT" pkg/wasm/*.wasm pkg/wasm/*.js pkg/*.js pkg/model/* <<'JS'
const { readFileSync } = require('node:fs');
const { brotliCompressSync, gzipSync, constants } = require('node:zlib');
const [slimLimit, generalLimit, ...files] = process.argv.slice(2);
const row = (...cells) => console.log(cells[0].padEnd(46) + cells.slice(1).map((c) => String(c).padStart(13)).join(''));
row('file', 'bytes', 'gzip', 'brotli');
let over = false;
for (const file of files) {
  const data = readFileSync(file);
  // A model is already dense: the highest level would take half a minute to find nothing.
  const quality = file.endsWith('.munjang') ? 5 : 11;
  const brotli = brotliCompressSync(data, { params: { [constants.BROTLI_PARAM_QUALITY]: quality } });
  row(file, data.length, gzipSync(data, { level: 9 }).length, brotli.length);
  const limit = file.includes('_general_') ? generalLimit : slimLimit;
  if (file.endsWith('.wasm') && brotli.length > limit) over = `${file} is larger than ${limit} bytes brotli`;
}
if (over) { console.error(over); process.exit(1); }
JS
  (cd pkg && quiet npm pack --dry-run)
}

# Makes the index of the texts that the page's search tab brings along (www/corpus/CARD.md).
stage_texts() {
  local texts=www/corpus/texts.jsonl.gz index=www/corpus/texts.index.gz work
  if [ -f "$index" ] && [ -z "$(find "$texts" models/manifest.json src/search src/index -newer "$index" -print -quit)" ]; then
    return
  fi
  say "Indexing the page's texts (a minute or two)"
  quiet cargo build --locked --release --features cli --bin munjang
  work=$(mktemp -d)
  gunzip -c "$texts" >"$work/texts.jsonl"
  quiet "${CARGO_TARGET_DIR:-target}/release/munjang" index "$work/texts.jsonl" --output "$work/texts.index"
  # Without a name and a time: the same bytes every time.
  gzip -9nc "$work/texts.index" >"$index.part"
  mv "$index.part" "$index"
  rm -rf "$work"
}

command_demo() {
  stage_package
  stage_texts
  exec node www/serve.mjs
}

# Each runner's own output is shown: its closing lines say how many tests ran.
command_test() {
  need cargo "install Rust from rustup"
  # Whoever tests builds everything once: what helps the next build only costs here.
  export CARGO_INCREMENTAL=0
  ensure_chromium
  ensure_test_packages
  check_sources
  say "Native tests"
  cargo test --locked --quiet --features train
  say "The tokenizer's tests without the feature general-tokenizers"
  cargo test --locked --quiet --lib tokenizer
  ensure_wasm_target
  ensure_wasm_bindgen
  say "candle stays out of the WebAssembly build, tokenizers out of the slim one"
  test_dependencies
  test_wasm
  stage_site
  say "Package and page tests"
  (cd tests && npm test)
  say "All tests passed"
}

# Puts the site as any host serves it into target/site: www/ and pkg/ side by side, and what leads to it.
command_site() {
  stage_site
  rm -rf target/site
  mkdir -p target/site
  cp -r www target/site/www
  rm -f target/site/www/*.mjs
  mkdir -p target/site/pkg
  cp -r pkg/*.js pkg/internal pkg/wasm pkg/model pkg/LICENSE-* target/site/pkg/
  # Above both, so that its scope holds both without a header.
  printf '%s\n' "self.MUNJANG_WWW = './www/';" "importScripts('./www/sw.js');" >target/site/sw.js
  printf '%s\n' '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=www/"><a href="www/">munjang</a>' >target/site/index.html
}

# The site's list of files, which its service worker keeps.
stage_site() {
  stage_package
  stage_texts
  quiet node www/precache.mjs
}

# Every test, also those that take long or need a network: the package in every kind of app.
command_test_all() {
  command_test
  say "A browser killed twenty times while it writes"
  (cd tests && npm run test:kills)
  command_fuzz 5
  say "Everything passed"
}

# Lints and documentation, without a warning.
command_lint() {
  check_sources
  say "Lints and documentation"
  cargo clippy --locked --quiet --all-targets --features train -- -D warnings
  RUSTDOCFLAGS='-D warnings' cargo doc --locked --quiet --no-deps --features cli
}

# What is seen at a glance.
check_sources() {
  say "Formatting, and what the crate packs"
  cargo fmt --all --check
  local others
  others=$(cargo package --locked --list --allow-dirty |
    grep -vE '^(Cargo\.(toml|toml\.orig|lock)|\.cargo_vcs_info\.json|LICENSE-(MIT|APACHE)|README\.md|(src|benches)/.*\.(rs|cu))$' || true)
  [ -z "$others" ] || fail "the crate would pack: $others"
}

# Mutates files and texts for so many minutes ($1), with a seed ($2); what it finds lies in fuzz/found/.
command_fuzz() {
  say "Fuzzing for ${1:-1} minutes"
  cargo run --locked --quiet --profile fuzz -p munjang-fuzz -- "${1:-1}" "${2:-$RANDOM}"
}

# Measures the package against its peers; what this needs (their packages, models) goes to .tools/,
# arguments go to benches/web/run.mjs.
command_bench() {
  if [ "${1:-}" = search ]; then
    bench_search "${@:2}"
    return
  fi
  ensure_chromium
  ensure_binaryen
  stage_package
  local data="$TOOLS/bench" python="$TOOLS/venv/bin/python"
  install_peers
  if [ ! -f "$TOOLS/venv/ready" ] || [ benches/web/requirements.txt -nt "$TOOLS/venv/ready" ]; then
    need python3 "install Python 3.10 or newer"
    say "Installing the peers' Python packages"
    quiet python3 -m venv "$TOOLS/venv"
    quiet "$python" -m pip install --quiet -r benches/web/requirements.txt
    touch "$TOOLS/venv/ready"
  fi
  if [ ! -f "$data/reference.json" ] || [ benches/web/make_models.py -nt "$data/reference.json" ]; then
    say "Making the models to compare"
    quiet "$python" benches/web/make_models.py "$data"
  fi
  say "Building the native encoder"
  quiet cargo build --locked --release --features cli --bin munjang --example measure
  quiet "${CARGO_TARGET_DIR:-target}/release/munjang" convert "$data/checkpoint" --output "$data/model.munjang"
  say "Measuring (some minutes; leave the machine alone)"
  node benches/web/run.mjs "$data" "$@"
}

install_peers() {
  if [ ! -d benches/web/node_modules ] || [ benches/web/package-lock.json -nt benches/web/node_modules ]; then
    say "Installing the peers' JavaScript packages"
    # Without their scripts, which download what a browser has no use for.
    quiet npm ci --prefix benches/web --ignore-scripts --no-audit --no-fund
    touch benches/web/node_modules
  fi
}

# The vector index against its peers. `--texts FILE` (a sentence a line) says of what the vectors are; without it they
# are of the 12,000 sentences in tests/fixtures, which is few. Other arguments go to benches/web/search.mjs.
bench_search() {
  local data="$TOOLS/bench" texts="$TOOLS/bench/sentences.txt" name
  mkdir -p "$data"
  ensure_chromium
  ensure_binaryen
  stage_package
  install_peers
  if [ "${1:-}" = --texts ]; then
    texts=$2
    shift 2
  elif [ ! -f "$texts" ]; then
    gzip -dc tests/fixtures/korean.txt.gz >"$texts"
  fi
  name=$(cat "$texts" models/manifest.json | sha256sum | cut -c 1-16)
  if [ ! -f "$data/$name.npy" ]; then
    say "Encoding $(wc -l <"$texts") sentences (once)"
    quiet cargo build --locked --release --features cli --bin munjang
    "${CARGO_TARGET_DIR:-target}/release/munjang" encode --model models --output "$data/$name.npy" <"$texts"
  fi
  say "Measuring (some minutes; leave the machine alone)"
  node benches/web/search.mjs --vectors "$data/$name.npy" "$@"
}

test_dependencies() {
  local slim general
  slim=$(cargo tree --locked --target "$TARGET" --edges normal)
  general=$(cargo tree --locked --target "$TARGET" --features general-tokenizers --edges normal)
  grep -q '^munjang ' <<<"$slim" && grep -q ' tokenizers v' <<<"$general" ||
    fail "cargo tree printed something else than expected"
  if grep candle <<<"$general"; then
    fail "the WebAssembly build depends on candle"
  fi
  if grep -E ' (tokenizers|regex|regex-automata|fancy-regex|aho-corasick|getrandom) v' <<<"$slim"; then
    fail "the slim WebAssembly build has what only other models' tokenizers need"
  fi
}

# The kernels' own tests and the encoder's bits, compiled to WebAssembly: plain SIMD in Node,
# relaxed SIMD in Chromium (Node 20 does not know it). No --quiet: cargo hands it on, and the runner
# does not know it.
test_wasm() {
  say "WebAssembly tests: plain SIMD in Node"
  CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER="$TOOLS/bin/wasm-bindgen-test-runner" \
    cargo_wasm simd test --features general-tokenizers --lib --test wasm --test search --test index
  say "WebAssembly tests: relaxed SIMD in Chromium"
  ensure_chromedriver
  CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER="$TOOLS/bin/wasm-bindgen-test-runner" \
    WASM_BINDGEN_USE_BROWSER=1 WASM_BINDGEN_TEST_TIMEOUT=120 CHROMEDRIVER="$CHROMEDRIVER" \
    WASM_BINDGEN_TEST_WEBDRIVER_JSON="$PWD/tests/webdriver.json" \
    cargo_wasm relaxed test --features general-tokenizers --lib --test wasm --test search --test index
}

ensure_chromedriver() {
  if ! command -v chromedriver >/dev/null 2>&1; then
    say "Installing chromedriver"
    apt_install chromium-driver || fail "no chromedriver found; install the one that fits Chromium"
  fi
  CHROMEDRIVER=$(command -v chromedriver)
}

usage() {
  cat <<'TEXT'
./build.sh demo    build everything and serve the demo page on localhost (PORT=8080)
./build.sh site    put the page as a static host serves it into target/site
./build.sh test    check the formatting and run the tests: native, WebAssembly, package, page
./build.sh test-all   the same and what takes long: twenty kills of a writing browser, five minutes of fuzzing
./build.sh lint    clippy and rustdoc, every warning an error
./build.sh fuzz    look for inputs without an answer (arguments: minutes, seed)
./build.sh pkg     build the npm package in pkg/ and print its sizes
./build.sh wasm    build the WebAssembly files only
./build.sh bench   measure the package against its peers in Chromium (options: benches/web/run.mjs)
./build.sh bench search [--texts FILE]   the vector index against its peers (options: benches/web/search.mjs)
TEXT
}

case ${1:-} in
  wasm | pkg | site | demo | test | lint) "command_$1" ;;
  test-all) command_test_all ;;
  fuzz) command_fuzz "${@:2}" ;;
  bench) command_bench "${@:2}" ;;
  *) usage; [ -z "${1:-}" ] ;;
esac
