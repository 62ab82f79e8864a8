#!/bin/sh
# Runs as process 1 of a device's new namespaces, with the host's programs: builds the device's root and enters it.
# $1: the device's folder (holds fake/), $2: the base, the rest: host paths the device sees read-only at the same path.
# Everything is on tmpfs in this mount namespace, so nothing outlives process 1.
set -eu
device=$1 base=$2
shift 2
mount --make-rprivate /
ip link set lo up
mount -t tmpfs -o size=64m,mode=755 none "$device/mnt"
cd "$device/mnt"
mkdir base fake upper work root
mount --bind "$base" base
mount --bind "$device/fake" fake
mount -t overlay -o lowerdir=fake:base,upperdir=upper,workdir=work none root
for path in "$@"; do
    mkdir -p "root${path%/*}"
    if [ -d "$path" ]; then mkdir -p "root$path"; else : >>"root$path"; fi
    mount --bind "$path" "root$path"
    mount -o remount,ro,bind "root$path"
    # adbd is not root, so it needs access to every folder on the way, such as /root.
    folder=${path%/*}
    while [ -n "$folder" ]; do
        chmod a+x "root$folder" 2>/dev/null || :
        folder=${folder%/*}
    done
done
mount -t proc proc root/proc
for name in cpuinfo loadavg meminfo; do mount --bind "root/sim/proc/$name" "root/proc/$name"; done
mount -t tmpfs -o size=16m,mode=755 none root/dev
for name in null zero full random urandom tty; do
    : >"root/dev/$name"
    mount --bind "/dev/$name" "root/dev/$name"
done
mkdir -p root/dev/pts root/dev/shm root/data
mount -t devpts -o newinstance,ptmxmode=666,gid=5,mode=620 devpts root/dev/pts
ln -s pts/ptmx root/dev/ptmx
mount -t tmpfs -o size=64m,mode=1777 none root/dev/shm
mount -t tmpfs -o size=4g,mode=771 none root/data
mkdir -p root/data/local/tmp root/data/misc/perfetto-traces root/mnt/old
chmod 755 root/data root/data/local root/data/misc
chmod 771 root/data/local/tmp
chown -R 2000:2000 root/data/local root/data/misc/perfetto-traces
chown -R 2000:2000 root/sim/settings root/sim/thermal
cd root
pivot_root . mnt/old
exec chroot . /sim/init
