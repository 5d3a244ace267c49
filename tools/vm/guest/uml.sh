# Stage 1 of a guest of User Mode Linux, whose root is the host's / (hostfs): builds the guest's root (host tree below, tmpfs
# above) and changes into it. The host puts two lines before this: the shell, and run=FOLDER with the run's own files.
bb=$run/busybox

fail() {
  echo "blksnap-vm: $*" >/dev/console
  $bb poweroff -f
}

mount_or_fail() {
  $bb mount "$@" || fail "cannot mount: $*"
}

# The one folder that certainly exists and is not needed meanwhile.
top=/proc
$bb mount -t tmpfs -o mode=755 tmpfs $top || fail "cannot mount a tmpfs"
$bb mkdir $top/data $top/work $top/root $top/keep
. $run/run.conf
mount_or_fail -t overlay -o lowerdir=/,upperdir=$top/data,workdir=$top/work overlay $top/root

cd $top/root
mount_or_fail -t proc proc proc
mount_or_fail -t sysfs sysfs sys
mount_or_fail -t devtmpfs devtmpfs dev
$bb mkdir -p run tmp var/tmp root ".$VM_MODULES_DIR" lib/modules dev/pts dev/shm
$bb mount --bind ".$VM_MODULES_DIR" lib/modules

# Folders the run needs that lie below a place about to be covered by a tmpfs are set aside and put back.
index=0
while read -r folder; do
  index=$((index + 1))
  $bb mkdir -p "$top/keep/$index"
  mount_or_fail --bind ".$folder" "$top/keep/$index"
done <$run/keep.list
$bb mount -t tmpfs -o mode=755 tmpfs run
$bb mount -t tmpfs -o mode=1777 tmpfs tmp
$bb mount -t tmpfs -o mode=1777 tmpfs var/tmp
index=0
while read -r folder; do
  index=$((index + 1))
  $bb mkdir -p ".$folder"
  $bb mount --move "$top/keep/$index" ".$folder"
done <$run/keep.list

home=run/blksnap-vm
$bb mkdir -p ".$VM_SHARE" $home/channels $home/old
mount_or_fail -t hostfs -o "$VM_SHARE" none ".$VM_SHARE"
mount_or_fail -t hostfs -o "$run/channels" none $home/channels
$bb cp $bb $run/uml-main.sh $run/command.sh $run/run.conf $home/
$bb pivot_root . $home/old || fail "cannot change the root"
cd /
exec $home/busybox chroot . /$home/busybox sh /$home/uml-main.sh </dev/console >/dev/console 2>&1
