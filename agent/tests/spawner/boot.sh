# Boots systemd as the first process of namespaces of its own. $1: a folder of the
# host with the units in it, the only one that can be written from inside; all else
# is a copy in memory, because systemd clears /tmp, writes to /etc and /var, and does
# not care that it is not alone. The caller made fresh control groups around us.
set -e
share=$1
mount --make-rprivate /
mount -t tmpfs tmpfs "$share/mem"
cd "$share/mem"
mkdir up work root
mount -t overlay overlay -o "lowerdir=/,upperdir=up,workdir=work" root
cd root
mount -t proc proc proc
mount --rbind /dev dev
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs tmpfs sys/fs/cgroup
cd sys/fs/cgroup
mkdir systemd memory unified
mount -t cgroup -o none,name=systemd cgroup systemd
mount -t cgroup -o memory cgroup memory
mount -t cgroup2 cgroup2 unified
cd ../../..
mkdir -p run/share run/systemd/system
mount --bind "$share" run/share
# Programs may lie on a disk of their own, which the copy does not hold.
shift
for program; do
    mkdir -p "./$(dirname "$program")"
    test -e "./$program" || : > "./$program"
    mount --bind "$program" "./$program"
done
cp -a run/share/units/. run/systemd/system/
pivot_root . mnt
cd /
umount -l mnt
export container=lxc
exec /lib/systemd/systemd --system --unit=inside.target
