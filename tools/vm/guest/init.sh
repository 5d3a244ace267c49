#!/bin/busybox sh
# Stage 1, inside the initramfs: builds the guest's root (host tree below, tmpfs above) and switches into it.
# Commands are called without their path: this shell has them built in, mostly without starting a program.
# The run's own settings come from /run.conf, which the host adds to the initramfs at each start.

fail() {
  echo "blksnap-vm: $*" >/dev/kmsg
  echo "blksnap-vm: $*" >/dev/ttyS0
  poweroff -f
}

mount_or_fail() {
  mount "$@" || fail "cannot mount: $*"
}

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
. /run.conf

for module in $VM_MODULES; do
  insmod "/modules/$module.ko" || fail "cannot load $module"
done

mount_or_fail -t virtiofs -o ro host /lower
mount_or_fail -t tmpfs -o mode=755 tmpfs /upper
mkdir /upper/data /upper/work
mount_or_fail -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /newroot

cd /newroot
mkdir -p proc sys dev run tmp var/tmp root "./$VM_MODULES_DIR" lib/modules
mount --bind "/newroot/$VM_MODULES_DIR" /newroot/lib/modules

# Folders the run needs that lie below a place about to be covered by a tmpfs are set aside and put back.
index=0
while read -r folder; do
  index=$((index + 1))
  mkdir -p "/keep/$index"
  mount_or_fail --bind "/newroot$folder" "/keep/$index"
done </keep.list
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=1777 tmpfs var/tmp
index=0
while read -r folder; do
  index=$((index + 1))
  mkdir -p "/newroot$folder"
  mount --move "/keep/$index" "/newroot$folder"
done </keep.list

mkdir -p "/newroot$VM_SHARE"
mount_or_fail -t virtiofs share "/newroot$VM_SHARE"

mkdir -p run/blksnap-vm
cp /bin/busybox /main.sh /command.sh /run.conf run/blksnap-vm/
for point in proc sys dev; do mount --move "/$point" "/newroot/$point"; done
exec switch_root /newroot /run/blksnap-vm/busybox sh /run/blksnap-vm/main.sh
