#!/bin/sh
# Prints what this host does with interrupts, clocks and queues, and the commands that would change it for a node whose
# executors have CPUs of their own. It changes nothing: read it, then run what you want.
#
#   hints.sh [CPUS]     the CPUs that are left to interrupts, as 0-1 (the default: 0)
set -eu
spare=${1:-0}

echo "# CPUs: $(cat /sys/devices/system/cpu/online 2>/dev/null || echo 'not known'); left to interrupts: $spare"
echo "# start the node with --cores LIST of the others"

echo
echo "# -- clocks"
found=no
for file in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor; do
    [ -r "$file" ] || continue
    found=yes
    governor=$(cat "$file")
    [ "$governor" = performance ] || echo "echo performance > $file   # is $governor"
done
[ "$found" = yes ] || echo "# no governors here: a virtual machine, most likely"
halt=/sys/module/haltpoll/parameters/guest_halt_poll_ns
if [ "$(cat /sys/devices/system/cpu/cpuidle/current_driver 2>/dev/null)" = haltpoll ] && [ -r $halt ]; then
    [ "$(cat $halt)" != 0 ] || echo "echo 200000 > $halt   # is 0: an idle virtual CPU halts at once"
fi
source=/sys/devices/system/clocksource/clocksource0
if [ -r $source/current_clocksource ]; then
    echo "# clock: $(cat $source/current_clocksource), of $(cat $source/available_clocksource)"
fi

echo
echo "# -- interrupts of disks and network cards"
if command -v systemctl > /dev/null 2>&1 && systemctl is-active --quiet irqbalance 2> /dev/null; then
    echo "# irqbalance moves interrupts: ban it from the executors' CPUs (IRQBALANCE_BANNED_CPULIST), or stop it"
fi
of_devices='nvme[0-9]+q|virtio[0-9]+-(req|input|output|rx|tx)|eth|ens|enp|eno|mlx|ena|ixgbe|i40e|ice-'
awk -v of="$of_devices" '$NF ~ of { sub(":", "", $1); print $1, $NF }' /proc/interrupts 2> /dev/null |
while read -r irq name; do
    list=/proc/irq/$irq/smp_affinity_list
    [ -r "$list" ] || continue
    is=$(cat "$list")
    [ "$is" = "$spare" ] || echo "echo $spare > $list   # $name, is $is"
done

echo
echo "# -- queues of disks"
for queue in /sys/block/*/queue; do
    disk=$(basename "$(dirname "$queue")")
    case $disk in loop* | ram* | zram* | sr*) continue ;; esac
    [ -r "$queue/scheduler" ] || continue
    case $(cat "$queue/scheduler") in
        *'[none]'* | none | *'[mq-deadline]'*) ;;
        *) echo "echo none > $queue/scheduler   # is $(cat "$queue/scheduler")" ;;
    esac
    if [ -r "$queue/write_cache" ]; then echo "# $disk: $(cat "$queue/write_cache")"; fi
done
