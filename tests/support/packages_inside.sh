#!/bin/sh
# tests/support/packages_inside.sh - what scripts/test-packages does in its container, as root, by systemd: /debs has
# the packages, a lower version of them in old/, and a model.
set -u
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
failures=0
checks=0

# check WHAT COMMAND...
check() {
    what=$1
    shift
    checks=$((checks + 1))
    if ! "$@" >/tmp/said 2>&1; then
        failures=$((failures + 1))
        echo "FAILED: $what"
        echo "    $*"
        sed 's/^/    | /' /tmp/said
    fi
}

not() { ! "$@"; }

# By the user anna, whose groups are read anew each time.
anna() { runuser -u anna -- env -u XDG_RUNTIME_DIR "$@"; }

says() {
    check "$1: says '$2'" grep -q -F -e "$2" /tmp/heard
}

# All files, and what those of /etc hold, but what changes by itself.
look() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /debs -o -path /var/tmp \
        -o -path /var/log -o -path /var/cache/apt -o -path /var/cache/ldconfig -o -path /var/cache/debconf -o -path /var/lib/dpkg \
        -o -path /var/lib/apt -o -path /var/lib/systemd/random-seed -o -path /var/lib/systemd/timers \
        -o -path /var/lib/systemd/catalog -o -path /home/anna \) -prune -o -printf '%y %m %u %g %p\n'
    find /run -name '*gist*'
    find /etc -type f ! -name '*-' ! -name ld.so.cache ! -name .pwd.lock ! -name .updated -exec md5sum {} +
}

useradd -m anna
look | grep -v ' /etc/[a-z]*-$' | sort >/tmp/before

# --- installed, without a model ------------------------------------------------------------------

check 'the lower version is installed' sh -c 'dpkg -i /debs/old/*.deb'
check 'the socket waits' systemctl is-active gistd.socket
check 'it will after the next boot, too' systemctl is-enabled gistd.socket
check 'the daemon was not started' not systemctl is-active gistd.service
check 'nor has it failed' not systemctl is-failed gistd.service
check "the HTTP front's socket waits" systemctl is-active gist-http.socket
check 'the folder of models is for the daemon' [ "$(stat -c '%U %G %a' /var/lib/gistd)" = 'gistd gistd 750' ]
anna gistctl status >/tmp/heard 2>&1
says 'who is not in the group' 'no permission'
usermod -aG gistd anna
anna gistctl ask --no-stdin 'What is this?' >/tmp/heard 2>&1
says 'without a model, the client' 'no model was named: write `model = FILE` with a GGUF file into /etc/gistd/gistd.conf'
journalctl -u gistd.service --no-pager >/tmp/heard
says 'without a model, the journal' 'no model was named: write `model = FILE` with a GGUF file into /etc/gistd/gistd.conf'
for i in 1 2 3 4 5 6 7 8; do anna gistctl status >/tmp/heard 2>&1; done
says 'the socket is not given up' 'no model was named'

# A user's own, which finds no settings.
uid=$(id -u anna)
systemctl start "user@$uid.service"
own() { runuser -u anna -- env XDG_RUNTIME_DIR="/run/user/$uid" "$@"; }
check "a user's own socket is not there before it is asked for" [ ! -e "/run/user/$uid/gistd/gistd.sock" ]
check "a user's own socket can be enabled" own systemctl --user enable --now gistd.socket
own sh -c 'GISTD_SOCKET=$XDG_RUNTIME_DIR/gistd/gistd.sock gistctl status' >/tmp/heard 2>&1
says "a user's own daemon" 'no model was named: write `model = FILE` with a GGUF file into'
check "a user's own socket can be disabled" own systemctl --user disable --now gistd.socket
systemctl stop "user@$uid.service"

# --- with one ------------------------------------------------------------------------------------

cp /debs/model.gguf /var/lib/gistd/model.gguf
sed -i 's|^#model =.*|model = /var/lib/gistd/model.gguf|' /etc/gistd/gistd.conf
systemctl stop gistd.service
check 'an ordinary user asks' anna gistctl ask --no-stdin -n 8 'What is this?'
cat /tmp/said
check 'the daemon serves' systemctl is-active gistd.service
check 'as its own user' [ "$(ps -o user= -p "$(systemctl show -P MainPID gistd.service)" 2>/dev/null || stat -c %U "/proc/$(systemctl show -P MainPID gistd.service)")" = gistd ]
journalctl -u gistd.service --no-pager >/tmp/heard
check 'its sandbox and its unit let it' not grep -q 'the sandbox denied' /tmp/heard
check 'over HTTP, too' sh -c 'curl -sS --max-time 120 --unix-socket /run/gistd/http.sock http://localhost/v1/completions -d "{\"prompt\": \"Once\", \"max_tokens\": 4}" | grep -q "\"text\""'

# --- upgraded ------------------------------------------------------------------------------------

pid=$(systemctl show -P MainPID gistd.service)
check 'it is upgraded' sh -c 'dpkg -i /debs/new/*.deb </dev/null'
check 'no version of before is left' not sh -c 'dpkg-query -W -f "\${Version}\n" | grep -x 0.0.1'
check 'the running daemon is the new one' [ "$(systemctl show -P MainPID gistd.service)" != "$pid" ]
check 'the socket waits' systemctl is-active gistd.socket
check 'the next question is answered' anna gistctl ask --no-stdin -n 8 'What is this?'
check "the administrator's setting stays" grep -q '^model = /var/lib/gistd/model.gguf$' /etc/gistd/gistd.conf
check 'a setting that nobody touched is the new one' not grep -q 'Of the version before' /etc/gistd/gist-http.conf
check 'no file of before is left' [ ! -e /usr/share/doc/gistd/of-the-version-before ]

# --- removed -------------------------------------------------------------------------------------

check 'it is removed' dpkg --remove gistd gist-http gist-dbus gistd-tools gistd-train gistd-adapters libgist-dev libgist0
check 'settings and models stay' [ -e /etc/gistd/gistd.conf -a -e /var/lib/gistd/model.gguf ]
check 'no process is left' not pgrep -x 'gistd|gist-http|gist-dbus'
check 'it is purged' dpkg --purge gistd gist-http gist-dbus gistd-tools gistd-train gistd-adapters libgist-dev libgist0
look | grep -v ' /etc/[a-z]*-$' | sort >/tmp/after
check 'nothing is left, and nothing is missing' diff /tmp/before /tmp/after
check 'nor a user' not sh -c 'getent passwd gistd gist-http; getent group gistd gist-http'

echo "$checks checks, $failures failed"
