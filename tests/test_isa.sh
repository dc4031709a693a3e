#!/bin/sh
# Would catch: wide instructions in an object that runs before, or without, the choice of a table (gistd
# would die by SIGILL on a CPU without AVX2), and in a table those of a wider set: AVX-512 or VNNI
# in AVX2's, bf16 in AVX-512's, matrix tiles (AMX) or f16 arithmetic in any.
set -u
BUILD=${BUILD:-build/release}
bad=0 n=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

if ! command -v objdump >/dev/null; then
    echo "no objdump here (Debian package binutils)"
    exit 77
fi
if [ "$(uname -m)" != x86_64 ]; then
    echo "not an x86-64 build"
    exit 77
fi

# first_hit OBJECT PATTERN: the first instruction that has it. Clones that the loader picks by the CPU (target_clones,
# named after what they need) may have what they are named after.
first_hit() {
    objdump -d --no-show-raw-insn "$1" | awk '/^[0-9a-f]+ </ { clone = /\.arch_x86_64_v[34]/ } !clone' |
        grep -E -m 1 "$2"
}

# f16 arithmetic: vaddph, vfmadd213sh... but not the conversions of F16C (vcvtph2ps, vcvtps2ph).
fp16='[[:space:]]v(f?m(add|sub|ul)|fn?m|add|sub|mul|div|sqrt|max|min|cmp|rcp|scalef|reduce)[a-z0-9]*[ps]h[[:space:]]'
amx='%tmm|tile(load|store|zero|release)|ldtilecfg|sttilecfg'

for o in $(find "$BUILD/base" "$BUILD/engine" "$BUILD/ipc" "$BUILD/client" "$BUILD/ctl" "$BUILD/daemon" -name '*.o'); do
    n=$((n + 1))
    case $o in
    */engine/cpu/kernels_avx2*.o | */engine/cpu/kernels_avxvnni*.o)
        pattern='%zmm|%[xy]mm(1[6-9]|2[0-9]|3[01])|%k[0-7]\b'
        case $o in */kernels_avx2*) pattern="$pattern|[[:space:]]vpdp" ;; esac
        ;;
    */engine/cpu/kernels_avx512*.o) pattern="$amx|$fp16|[[:space:]]v[a-z0-9]*bf16" ;;
    */engine/cpu/kernels_bf16*.o) pattern="$amx|$fp16" ;;
    *) pattern='%[yz]mm|[[:space:]]v[a-z0-9]+ +.*%xmm' ;;
    esac
    if hit=$(first_hit "$o" "$pattern"); then
        echo "$o: $hit"
        bad=1
    fi
done

# Clones are left out, and what stands behind them is not.
echo '__attribute__((target_clones("arch=x86-64-v3", "default"))) void a(float *x) { for (int i = 0; i < 4096; i++) x[i] *= 2; }' >"$dir/c.c"
cp "$dir/c.c" "$dir/d.c"
echo '__attribute__((target("avx2"))) void b(float *x) { for (int i = 0; i < 4096; i++) x[i] += 2; }' >>"$dir/d.c"
if gcc -O3 -c "$dir/c.c" -o "$dir/c.o" 2>/dev/null && gcc -O3 -c "$dir/d.c" -o "$dir/d.o"; then
    if first_hit "$dir/c.o" '%ymm' >/dev/null || ! first_hit "$dir/d.o" '%ymm' >/dev/null; then
        echo "a clone counts, or what stands behind one does not"
        bad=1
    fi
fi

# The patterns must find what they look for: an object that has it, and enough objects.
if ! first_hit "$BUILD/engine/cpu/kernels_avx2.o" '%ymm' >/dev/null; then
    echo "no %ymm in kernels_avx2.o: this test looks at the wrong thing"
    bad=1
fi
if [ "$n" -lt 10 ]; then
    echo "only $n objects under $BUILD"
    bad=1
fi
exit $bad
