#!/bin/sh
# tests/test_install.sh - make install and make uninstall, into folders of their own. Would catch: a program that does
# not build with what was installed, a file with another prefix's path, and one that uninstall leaves or that it takes
# though it is not ours.
set -eu
. tests/support/daemon.sh
flavour=$(basename "$BUILD")
case $flavour in
release) ;;
*)
    echo "installed is what was released, not $flavour"
    exit 77
    ;;
esac
dest=$tmp/dest
to() {
    env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL -u CFLAGS -u LDFLAGS make --no-print-directory "$@" DESTDIR="$dest" PREFIX=/opt/gist LIBDIR=/opt/gist/lib64
}

code 'install' 0 to install
at=$dest/opt/gist
for file in bin/gistd bin/gistctl bin/gist-http bin/gist-dbus lib64/libgist.so lib64/libgist.a include/gist.h include/gist/conn.h lib64/pkgconfig/gist.pc \
    share/dbus-1/system-services/org.gistd.Manager1.service \
    share/man/man8/gistd.8 share/man/man3/gist_open.3 share/bash-completion/completions/gistctl \
    share/zsh/site-functions/_gistctl share/fish/vendor_completions.d/gist-http.fish lib/gistd/complete \
    share/doc/gistd/README.md share/doc/gistd/docs/memory.md share/doc/gistd/gistd.conf lib/systemd/system/gistd.service \
    lib/systemd/user/gist-http.socket lib/sysusers.d/gistd.conf lib/sysusers.d/gist-http.conf lib/tmpfiles.d/gistd.conf; do
    check "there is $file" [ -s "$at/$file" ]
done
check 'units start what was installed' grep -q '^ExecStart=/opt/gist/bin/gistd' "$at/lib/systemd/system/gistd.service"
check 'no file is from elsewhere' sh -c "! grep -r -I -l -e '$dest' -e '@PREFIX@' -e '@LIBDIR@' '$at/lib' '$at/lib64/pkgconfig' '$at/share'"
# Pages that README points to are there.
check 'the links of README.md lead somewhere' sh -c "cd '$at/share/doc/gistd' && for f in \$(grep -o '\`docs/[a-z_-]*\\.md\`' README.md | tr -d '\`' | sort -u); do [ \$f = docs/status.md ] || [ -s \$f ] || { echo \$f; exit 1; }; done"

# A program elsewhere, by pkg-config alone, with either library.
PKG_CONFIG_PATH=$at/lib64/pkgconfig PKG_CONFIG_SYSROOT_DIR=$dest
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR
check "its version is the daemon's" [ "gistd $(pkg-config --modversion gist)" = "$("$at/bin/gistd" --version)" ]
# shellcheck disable=SC2046
check 'a program builds' ${CC:-cc} -o "$tmp/asker" examples/asker.c $(pkg-config --cflags --libs gist)
unset PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR
daemon_start tests/data/tiny_smollm2.gguf
seq 1 100 >"$tmp/book"
code 'a document' 0 "$at/bin/gistctl" doc add book --file "$tmp/book"
code 'the program' 0 env LD_LIBRARY_PATH="$at/lib64" "$tmp/asker" book 'What is this?'
check 'it answers' grep -q 'tokens written' "$tmp/out"
daemon_stop

# What others put beside ours stays, and so does what its folder needs.
echo mine >"$at/share/gistd/adapters/mine.safetensors"
echo mine >"$at/bin/mine"
code 'uninstall' 0 to uninstall
check 'only what is not ours is left' [ "$(cd "$at" && find . -type f -o -type l | sort | paste -s -d ' ')" = './bin/mine ./share/gistd/adapters/mine.safetensors' ]
check 'no folder of ours is left' [ ! -e "$at/share/doc/gistd" -a ! -e "$at/lib/gistd" ]
code 'uninstall where nothing is' 0 to uninstall
done_testing
