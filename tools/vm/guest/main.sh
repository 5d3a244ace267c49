# Stage 2, process 1 of the guest: runs the command, brings its output and status back, ends the machine.
home=/run/blksnap-vm
bb=$home/busybox
. $home/run.conf

$bb mkdir -p /dev/pts /dev/shm
$bb mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
$bb mount -t tmpfs -o mode=1777 tmpfs /dev/shm
$bb mount -t debugfs debugfs /sys/kernel/debug
$bb ln -sf /proc/self/fd /dev/fd
for pair in stdin:0 stdout:1 stderr:2; do $bb ln -sf "/proc/self/fd/${pair#*:}" "/dev/${pair%:*}"; done
$bb hostname blksnap-vm
$bb ifconfig lo 127.0.0.1 up
ulimit -l unlimited
ulimit -Hn 1048576

exec 3<>/dev/vport0p3
# Waits for one of our processes, at most $2 tenths of a second: it may be unkillable.
wait_at_most() {
  left=$2
  while kill -0 "$1" 2>/dev/null && [ "$left" -gt 0 ]; do
    $bb sleep 0.1
    left=$((left - 1))
  done
}

# Background processes of the command would keep the output pipes open forever.
# Kernel threads are among the targets, and ignore it.
kill_others() {
  targets=
  for folder in /proc/[0-9]*; do
    pid=${folder#/proc/}
    case " 1 $relay_out $relay_err $watcher " in *" $pid "*) continue ;; esac
    targets="$targets $pid"
  done
  kill -9 $targets 2>/dev/null
}

save_log() {
  $bb dmesg >"$VM_SHARE/dmesg.txt" 2>/dev/null
}

# The host ends a run that took too long: log where it hangs.
watch_host() {
  while :; do
    if read -r request <&3; then
      [ "$request" = stop ] || continue
      echo w >/proc/sysrq-trigger
      save_log
      echo stopped >&3
    else
      $bb sleep 0.2
    fi
  done
}

# Where the host held the guest up while the kernel measured how fast the processor counts, time can pass several times
# too fast, and each limit of a test with it. The clock was set by the machine's RTC, which follows the host.
clock_error_s() {
  before=$($bb date +%s)
  read -r rtc </sys/class/rtc/rtc0/since_epoch || return 0
  after=$($bb date +%s)
  if [ "$rtc" -lt "$before" ]; then echo $((before - rtc)); else echo $((rtc > after ? rtc - after : 0)); fi
}
error_s=$(clock_error_s)
if [ "${error_s:-0}" -gt 3 ]; then
  # Not ready: the host boots another one.
  echo "blksnap-vm: the clock is wrong by $error_s s since the kernel began" >/dev/ttyS0
  echo o >/proc/sysrq-trigger
  $bb sleep 3600
fi

relay_out=
relay_err=
watch_host &
watcher=$!
echo ready >&3
if [ -n "$VM_SHELL" ]; then
  $bb setsid -c /bin/sh $home/command.sh <>/dev/hvc0 >&0 2>&1 3>&- &
else
  # Through pipes and not straight to the ports: a port can be opened only once, and programs open
  # /dev/stdout and /dev/stderr by name.
  $bb mkfifo $home/stdout $home/stderr
  $bb cat <$home/stdout >/dev/vport0p1 3>&- &
  relay_out=$!
  $bb cat <$home/stderr >/dev/vport0p2 3>&- &
  relay_err=$!
  /bin/sh $home/command.sh </dev/null >$home/stdout 2>$home/stderr 3>&- &
fi
wait $!
status=$?

kill_others
wait_at_most $relay_out 100
wait_at_most $relay_err 100
# Bounded, because a block device without a server can make sync hang.
$bb sync &
wait_at_most $! 50
save_log
echo "status $status" >&3
$bb sleep 5
echo o >/proc/sysrq-trigger
$bb sleep 3600
