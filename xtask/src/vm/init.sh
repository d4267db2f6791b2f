#!/vm/busybox sh
# The first process of a guest of `cargo xtask vm`: sets the machine up, runs the live suite, powers off.
#
# The kernel's console is the first serial port. What the host reads is the second: the suite's own output, and lines
# that begin with "@vm". The end of a pass is such a line; without it the host takes the pass for failed.
PATH=/usr/sbin:/usr/bin:/sbin:/bin:/vm/applets
HOME=/root
export PATH HOME

finish() {
  /vm/busybox poweroff -f
}

# Whatever happens, the machine goes off.
trap finish EXIT

/vm/busybox mkdir -p /proc /sys /dev /run /tmp /root /vm/applets
/vm/busybox mount -t proc proc /proc
/vm/busybox mount -t sysfs sysfs /sys
/vm/busybox mount -t devtmpfs devtmpfs /dev
/vm/busybox mkdir -p /dev/pts /dev/shm
/vm/busybox mount -t devpts devpts /dev/pts
/vm/busybox mount -t tmpfs -o mode=1777 tmpfs /dev/shm
/vm/busybox mount -t tmpfs -o mode=755 tmpfs /run
# Not a file system of its own: the programs to run may lie below it. All of this is memory anyway.
/vm/busybox chmod 1777 /tmp
/vm/busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
/vm/busybox mount -t bpf bpf /sys/fs/bpf
/vm/busybox ln -s /proc/self/fd /dev/fd
/vm/busybox --install -s /vm/applets
# The kernel asks for the modules it lacks, as on a real host.
[ -e /sbin/modprobe ] || /vm/busybox ln -s /vm/busybox /sbin/modprobe
/vm/busybox ip link set lo up
# As on the machines the suite is meant for; the kernel's own bound for the first process is 1024.
ulimit -n 20000
exec </dev/null >/dev/ttyS1 2>&1
/vm/busybox stty -F /dev/ttyS1 -opost

# What a daemon with these arguments says of itself.
describe() {
  say snapshot "$(
    "$SOCKLIFE_BIN" run --socket /run/vm.sock --for 60s $SOCKLIFE_RUN_ARGS >/run/vm.log 2>&1 &
    daemon=$!
    tries=0
    until "$SOCKLIFE_BIN" snapshot --socket /run/vm.sock 2>/dev/null; do
      tries=$((tries + 1))
      [ -d "/proc/$daemon" ] && [ "$tries" -lt 60 ] || break
      sleep 1
    done
    kill "$daemon" 2>/dev/null
    wait "$daemon" || cat /run/vm.log
  )"
}

say() {
  echo "@vm $1 $(echo "$2" | tr -d '\n')"
}

doctor() {
  say doctor "$("$SOCKLIFE_BIN" doctor --json)"
}

# pass NAME EXPECTED_ACCEPT ARGUMENTS_OF_RUN TEST_FILTER...
pass() {
  name=$1 SOCKLIFE_EXPECT_ACCEPT=$2 SOCKLIFE_RUN_ARGS=$3
  shift 3
  export SOCKLIFE_EXPECT_ACCEPT SOCKLIFE_RUN_ARGS
  echo "@vm pass $name"
  describe
  "$LIVE" --test-threads=1 "$@"
  echo "@vm exit $?"
}

echo "@vm release $(uname -r)"
. /vm/passes
echo "@vm end"
