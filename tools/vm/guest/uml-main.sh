# Stage 2, process 1 of a guest of User Mode Linux: runs the command, brings its output and status back, ends the machine.
home=/run/blksnap-vm
bb=$home/busybox
channels=$home/channels
. $home/run.conf

$bb umount -l $home/old
$bb mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
$bb mount -t tmpfs -o mode=1777 tmpfs /dev/shm
$bb mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
$bb ln -sf /proc/self/fd /dev/fd
for pair in stdin:0 stdout:1 stderr:2; do $bb ln -sf "/proc/self/fd/${pair#*:}" "/dev/${pair%:*}"; done
$bb hostname blksnap-vm
$bb ifconfig lo 127.0.0.1 up
for module in $VM_MODULES; do $bb modprobe "$module" || echo "blksnap-vm: cannot load $module"; done
ulimit -l unlimited
ulimit -Hn 1048576

exec 3>>$channels/control
save_log() {
  $bb dmesg >"$VM_SHARE/dmesg.txt" 2>/dev/null
}

# The host ends a run that took too long: log where it hangs.
watch_host() {
  until [ -e $channels/stop ]; do $bb sleep 0.2; done
  echo w >/proc/sysrq-trigger
  save_log
  echo stopped >&3
}

watch_host &
watcher=$!
echo ready >&3
if [ -n "$VM_SHELL" ]; then
  $bb setsid -c /bin/sh $home/command.sh <>/dev/tty1 >&0 2>&1 3>&- &
else
  # Through pipes: later output of processes left behind does not reach the host.
  $bb mkfifo $home/stdout $home/stderr
  $bb cat <$home/stdout >>$channels/stdout 3>&- &
  relay_out=$!
  $bb cat <$home/stderr >>$channels/stderr 3>&- &
  relay_err=$!
  /bin/sh $home/command.sh </dev/null >$home/stdout 2>$home/stderr 3>&- &
fi
wait $!
status=$?

# Background processes of the command would keep the pipes open forever.
targets=
for folder in /proc/[0-9]*; do
  pid=${folder#/proc/}
  case " 1 $relay_out $relay_err $watcher " in *" $pid "*) continue ;; esac
  targets="$targets $pid"
done
kill -9 $targets 2>/dev/null
left=100
while kill -0 $relay_out $relay_err 2>/dev/null && [ $left -gt 0 ]; do
  $bb sleep 0.1
  left=$((left - 1))
done
save_log
echo "status $status" >&3
$bb sleep 5
$bb poweroff -f
