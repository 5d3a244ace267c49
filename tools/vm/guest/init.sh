#!/bin/busybox sh
# Stage 1, inside the initramfs: builds the guest's root (host tree below, tmpfs above) and switches into it.
# The run's own settings come from /run.conf, which the host adds to the initramfs at each start.
bb=/bin/busybox

fail() {
  echo "blksnap-vm: $*" >/dev/kmsg
  echo "blksnap-vm: $*" >/dev/ttyS0
  $bb poweroff -f
}

mount_or_fail() {
  $bb mount "$@" || fail "cannot mount: $*"
}

$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
. /run.conf

for module in $VM_MODULES; do
  $bb insmod "/modules/$module.ko" || fail "cannot load $module"
done

mount_or_fail -t virtiofs -o ro host /lower
mount_or_fail -t tmpfs -o mode=755 tmpfs /upper
$bb mkdir /upper/data /upper/work
mount_or_fail -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /newroot

cd /newroot
$bb mkdir -p proc sys dev run tmp var/tmp root "./$VM_MODULES_DIR" lib/modules
$bb mount --bind "/newroot/$VM_MODULES_DIR" /newroot/lib/modules

# Folders the run needs that lie below a place about to be covered by a tmpfs are set aside and put back.
index=0
while read -r folder; do
  index=$((index + 1))
  $bb mkdir -p "/keep/$index"
  mount_or_fail --bind "/newroot$folder" "/keep/$index"
done </keep.list
$bb mount -t tmpfs -o mode=755 tmpfs run
$bb mount -t tmpfs -o mode=1777 tmpfs tmp
$bb mount -t tmpfs -o mode=1777 tmpfs var/tmp
index=0
while read -r folder; do
  index=$((index + 1))
  $bb mkdir -p "/newroot$folder"
  $bb mount --move "/keep/$index" "/newroot$folder"
done </keep.list

$bb mkdir -p "/newroot$VM_SHARE"
mount_or_fail -t virtiofs share "/newroot$VM_SHARE"

$bb mkdir -p run/blksnap-vm
$bb cp $bb /main.sh /command.sh /run.conf run/blksnap-vm/
for point in proc sys dev; do $bb mount --move "/$point" "/newroot/$point"; done
exec $bb switch_root /newroot /run/blksnap-vm/busybox sh /run/blksnap-vm/main.sh
