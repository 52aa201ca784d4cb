//! Trees like `/proc` and `/sys` of boards that this machine is not: whole, silent, broken.

use std::fs;
use std::path::{Path, PathBuf};

use homeostat_common::observation::{Metric, Reading};
use homeostat_common::units::{Micros, Millis, Ratio};

use super::tests::{found, host, one};
use super::*;

/// A tree that can be written to and broken.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn host(&self) -> Host {
        host(self.root(), self.root(), &["/".into()])
    }
}

const SECOND: u64 = 1_000_000;

/// What a board with four cores, an SD card, a radio, a battery and RAPL shows.
fn board() -> Tree {
    let tree = Tree::new();
    counters(&tree, 0);
    for (name, text) in [
        ("self/mounts", "/dev/root / ext4 rw 0 0\n"),
        ("loadavg", "2.50 1 1 1/9 9\n"),
        ("sys/fs/file-nr", "640\t40\t9223372036854775807\n"),
        ("net/sockstat", "sockets: used 17\nTCP: inuse 3 orphan 0\n"),
        ("sys/net/netfilter/nf_conntrack_count", "512\n"),
        ("sys/net/netfilter/nf_conntrack_max", "2048\n"),
        (
            "net/wireless",
            "Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE\n \
             face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22\n \
             wlan0: 0000   54.  -56.  -256        0      0      0      0      0        0\n",
        ),
        ("class/net/eth0/speed", "100"),
        ("class/net/eth0/carrier", "1"),
        ("class/net/wlan0/speed", "-1"),
        ("class/net/wlan0/carrier", "0"),
        ("devices/platform/soc/soc:firmware/get_throttled", "50005\n"),
        ("class/hwmon/hwmon0/in0_lcrit_alarm", "0\n"),
        ("class/hwmon/hwmon1/power1_input", "3500000\n"),
        ("class/power_supply/BAT0/type", "Battery\n"),
        ("class/power_supply/BAT0/capacity", "42\n"),
        ("class/power_supply/BAT0/status", "Discharging\n"),
        ("class/power_supply/BAT0/power_now", "4000000\n"),
        ("class/power_supply/mouse/type", "Battery\n"),
        ("class/power_supply/mouse/scope", "Device\n"),
        ("class/power_supply/mouse/capacity", "1\n"),
    ] {
        tree.write(name, text);
    }
    for (policy, now, cap) in [(0, "600000", "1500000"), (2, "900000", "900000")] {
        let at = format!("devices/system/cpu/cpufreq/policy{policy}");
        tree.write(&format!("{at}/cpuinfo_max_freq"), "1500000\n");
        tree.write(&format!("{at}/scaling_cur_freq"), now);
        tree.write(&format!("{at}/scaling_max_freq"), cap);
    }
    tree
}

/// All counters after so many seconds.
fn counters(tree: &Tree, seconds: u64) {
    let n = |per_second: u64| per_second * seconds;
    let core = |name: &str, user: u64, wait: u64, steal: u64| {
        let idle = n(100) - user - wait - steal;
        format!("{name} {user} 0 0 {idle} {wait} 0 0 {steal} 0 0\n")
    };
    // Twenty seconds' worth at the start, so that nothing is 0.
    let stat = format!(
        "cpu  {} 0 0 {} {} 0 0 {} 0 0\n{}{}intr 1 2 3\n",
        n(100),
        n(70),
        n(20),
        n(10),
        core("cpu0", n(80), n(20), 0),
        core("cpu1", n(20), 0, n(10)),
    );
    tree.write("stat", stat);
    tree.write(
        "meminfo",
        "MemTotal: 1000 kB\nMemAvailable: 500 kB\nSwapTotal: 100 kB\nSwapFree: 60 kB\n",
    );
    tree.write(
        "vmstat",
        format!(
            "nr_free 1\npswpin {}\npswpout {}\noom_kill {}\n",
            n(1),
            n(2),
            n(3)
        ),
    );
    for resource in ["cpu", "io", "memory"] {
        let text = format!(
            "some avg10=0.00 avg60=0.00 avg300=0.00 total={}\n\
             full avg10=0.00 avg60=0.00 avg300=0.00 total={}\n",
            n(250_000),
            n(125_000)
        );
        tree.write(&format!("pressure/{resource}"), text);
    }
    tree.write(
        "block/mmcblk0/stat",
        format!(
            "{} 0 {} {} {} 0 {} {} 0 {} 9 0 0 0 0\n",
            n(3),
            n(8),
            n(30),
            n(1),
            n(2),
            n(10),
            n(400)
        ),
    );
    for other in ["loop0", "mmcblk0boot0", "zram0", "dm-0"] {
        tree.write(&format!("block/{other}/stat"), "1 1 1 1 1 1 1 1 1 1 1\n");
    }
    tree.write(
        "net/dev",
        format!(
            "Inter-| Receive | Transmit\n face |bytes packets errs|bytes\n    \
             lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  \
             eth0: {} {} {} {} 0 0 0 0 {} {} 0 0 0 0 0 0\n \
             wlan0: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n\
             veth9: 7 7 0 0 0 0 0 0 7 7 0 0 0 0 0 0\n",
            n(1_250_000),
            n(900),
            n(2),
            n(1),
            n(6_250_000),
            n(600)
        ),
    );
    tree.write(
        "net/snmp",
        format!(
            "Ip: Forwarding\nIp: 1\nTcp: RtoMin OutSegs RetransSegs\nTcp: -1 {} {}\n",
            n(99),
            n(1)
        ),
    );
    tree.write(
        "class/powercap/intel-rapl:0/energy_uj",
        (n(2_000_000) + 7).to_string(),
    );
    tree.write(
        "class/powercap/intel-rapl:0:0/energy_uj",
        n(1_000_000).to_string(),
    );
    tree.write(
        "class/powercap/intel-rapl-mmio:0/energy_uj",
        n(2_000_000).to_string(),
    );
    // The agent: a tenth of a core, of one that is busy.
    let own = format!(
        "9 (x) S 1 7 7 0 -1 0 0 0 0 0 {} 0 0 0 20 0 4 0 77 0 0 0",
        n(10)
    );
    tree.write("self/stat", own);
    tree.write(
        "self/io",
        format!(
            "rchar: 1\nread_bytes: 0\nwrite_bytes: {}\ncancelled_write_bytes: 96\n",
            4096 + n(0)
        ),
    );
}

#[test]
fn a_board_shows_all_that_it_has() {
    let tree = board();
    let mut host = tree.host();
    let first = host.sample(Micros(0));
    assert_eq!(first.garbage, 0);
    counters(&tree, 10);
    let reading = host.sample(Micros(10 * SECOND));
    assert_eq!(reading.garbage, 0);
    let text: String = reading
        .sources
        .iter()
        .filter(|source| {
            !matches!(
                source.reading.metric,
                Metric::Uptime | Metric::ClockSynchronised
            )
        })
        .filter(|source| !matches!(source.reading.metric, Metric::DiskFree | Metric::InodesFree))
        .map(|source| {
            let reading = &source.reading;
            let part = reading.part.as_ref().map_or("", |part| part.as_str());
            let value = match reading.reading {
                Reading::Fresh(value) => format!("{value:.3}"),
                other => format!("{other:?}"),
            };
            format!(
                "{} {part} {value} {}\n",
                reading.metric.name(),
                reading.metric.unit()
            )
        })
        .collect();
    expect_test::expect![[r#"
        cpu_iowait  0.100 ratio
        cpu_steal  0.050 ratio
        cpu_core_max  0.800 ratio
        load  2.500 count
        cpu_frequency  0.500 ratio
        cpu_frequency_cap  0.600 ratio
        throttled  1.000 flag
        under_voltage  1.000 flag
        swap_used  40960.000 bytes
        swap_in  4096.000 bytes_per_second
        swap_out  8192.000 bytes_per_second
        oom_kills  3.000 per_second
        tcp_retransmits  0.010 ratio
        sockets  17.000 count
        conntrack_used  0.250 ratio
        battery_charge  0.420 ratio
        on_mains  0.000 flag
        power  2.000 watts
        energy  20.000 joules
        own_energy_estimate  1.818 joules
        files_open  600.000 count
        own_written  4000.000 bytes
        io_pressure_full  0.125 ratio
        memory_pressure_full  0.125 ratio
        cpu_pressure_peak  Missing ratio
        io_pressure_peak  Missing ratio
        memory_pressure_peak  Missing ratio
        disk_read mmcblk0 4096.000 bytes_per_second
        disk_written mmcblk0 1024.000 bytes_per_second
        disk_requests mmcblk0 4.000 per_second
        disk_busy mmcblk0 0.400 ratio
        disk_await mmcblk0 10.000 ms
        net_received eth0 1250000.000 bytes_per_second
        net_sent eth0 6250000.000 bytes_per_second
        net_packets eth0 1500.000 per_second
        net_errors eth0 2.000 per_second
        net_drops eth0 1.000 per_second
        net_carrier eth0 1.000 flag
        net_speed eth0 12500000.000 bytes_per_second
        net_load eth0 0.500 ratio
        net_received wlan0 0.000 bytes_per_second
        net_sent wlan0 0.000 bytes_per_second
        net_packets wlan0 0.000 per_second
        net_errors wlan0 0.000 per_second
        net_drops wlan0 0.000 per_second
        net_carrier wlan0 0.000 flag
        net_speed wlan0 Missing bytes_per_second
        net_load wlan0 Missing ratio
        radio_signal wlan0 -56.000 dbm
        radio_noise wlan0 Missing dbm
    "#]]
    .assert_eq(&text);
    assert_eq!(reading.cpu_busy.fresh(), Ratio::new(0.55).ok());
    let battery = reading.battery.fresh().unwrap();
    assert!((battery.charge.get() - 0.42).abs() < 1e-6 && !battery.mains);
    assert!(found(&reading, Metric::DiskFree)[0].1.fresh().is_some());
}

#[test]
fn a_board_without_anything_has_no_readings_and_no_garbage() {
    let tree = Tree::new();
    let mut host = tree.host();
    for second in 0..70 {
        let reading = host.sample(Micros(second * SECOND));
        host.glance(Micros(second * SECOND + 100_000));
        assert_eq!(reading.garbage, 0);
        for source in &reading.sources {
            let known = matches!(
                source.reading.metric,
                Metric::Uptime | Metric::ClockSynchronised
            );
            let missing = source.reading.reading == Reading::Missing;
            assert!(known || missing, "{source:?}");
        }
    }
}

#[test]
fn what_falls_silent_grows_old_and_comes_back() {
    let tree = board();
    let mut host = tree.host();
    host.sample(Micros(0));
    counters(&tree, 1);
    let before = host.sample(Micros(SECOND));
    assert_eq!(
        found(&before, Metric::NetReceived)[0].1,
        Reading::Fresh(1_250_000.0)
    );
    fs::remove_dir_all(tree.root().join("net")).unwrap();
    // The text of an open file that was removed stays the same for ever; what is opened anew
    // does not.
    let mut host = tree.host();
    counters(&tree, 2);
    host.sample(Micros(2 * SECOND));
    tree.write(
        "net/dev",
        "Inter-| Receive | Transmit\n face |bytes packets errs|bytes\n",
    );
    fs::write(tree.root().join("vmstat"), "").unwrap();
    let silent = host.sample(Micros(3 * SECOND));
    let age = Millis(1000);
    assert!(matches!(
        found(&silent, Metric::NetReceived)[0].1,
        Reading::Missing
    ));
    assert!(silent.garbage >= 1, "{}", silent.garbage);
    counters(&tree, 4);
    host.sample(Micros(4 * SECOND));
    counters(&tree, 5);
    let back = host.sample(Micros(5 * SECOND));
    assert_eq!(
        found(&back, Metric::NetReceived)[0].1,
        Reading::Fresh(1_250_000.0)
    );
    assert_eq!(one(&back, Metric::OomKills), Reading::Fresh(3.0));
    fs::write(tree.root().join("loadavg"), "nan").unwrap();
    let stale = host.sample(Micros(6 * SECOND));
    assert_eq!(one(&stale, Metric::Load), Reading::Stale { last: 2.5, age });
}

#[test]
fn a_stall_between_two_samples_shows_in_the_peak_alone() {
    let tree = board();
    let mut host = tree.host();
    let waited = |micros: u64| {
        let text = format!("some avg10=0.00 total={micros}\nfull avg10=0.00 total=0\n");
        tree.write("pressure/io", text);
    };
    waited(0);
    host.sample(Micros(0));
    for tenth in 1..=10 {
        waited(if tenth >= 4 { 90_000 } else { 0 });
        host.glance(Micros(tenth * 100_000));
    }
    let reading = host.sample(Micros(SECOND));
    assert!((reading.io_pressure.fresh().unwrap().get() - 0.09).abs() < 1e-6);
    assert_eq!(one(&reading, Metric::IoPressurePeak), Reading::Fresh(0.9));
    let quiet = host.sample(Micros(2 * SECOND));
    assert!(
        matches!(one(&quiet, Metric::IoPressurePeak), Reading::Stale { last, .. } if last == 0.9)
    );
}

#[test]
fn energy_is_counted_over_a_counter_that_goes_round_and_not_over_a_gap() {
    let tree = board();
    let energy = "class/powercap/intel-rapl:0/energy_uj";
    tree.write(
        "class/powercap/intel-rapl:0/max_energy_range_uj",
        "100000000\n",
    );
    let mut host = tree.host();
    let mut look = |at: u64, microjoules: u64| {
        tree.write(energy, microjoules.to_string());
        let reading = host.sample(Micros(at * SECOND));
        [Metric::Power, Metric::Energy].map(|metric| one(&reading, metric).fresh())
    };
    assert_eq!(look(0, 90_000_000), [Some(3.5), None]);
    assert_eq!(look(10, 95_000_000), [Some(0.5), Some(5.0)]);
    assert_eq!(look(20, 5_000_000), [Some(1.0), Some(15.0)]);
    // For five minutes nobody looked: what was drawn then is not known.
    let [_, joules] = look(320, 50_000_000);
    assert_eq!(joules, Some(15.0));
    assert_eq!(look(330, 60_000_000), [Some(1.0), Some(25.0)]);
}

#[test]
fn disks_and_interfaces_come_and_go() {
    let tree = board();
    let mut host = tree.host();
    host.sample(Micros(0));
    tree.write("block/sda/stat", "0 0 0 0 0 0 0 0 0 0 0\n");
    host.sample(Micros(61 * SECOND));
    fs::remove_dir_all(tree.root().join("block/mmcblk0")).unwrap();
    let parts = |reading: &HostReading| -> Vec<String> {
        let all = found(reading, Metric::DiskBusy).into_iter();
        all.map(|(part, _)| part).collect()
    };
    assert_eq!(parts(&host.sample(Micros(62 * SECOND))), ["mmcblk0", "sda"]);
    assert_eq!(parts(&host.sample(Micros(125 * SECOND))), ["sda"]);
    let many: String = (0..40)
        .map(|n| format!("eth{n}: 1 1 1 1 0 0 0 0 1 1 1 1 0 0 0 0\n"))
        .collect();
    let counts = "1 1 1 1 0 0 0 0 1 1 1 1 0 0 0 0";
    let radio = format!("lo: {counts}\nlowpan0: {counts}\n{many}");
    tree.write("net/dev", format!("x\ny bytes\n{radio}"));
    let reading = host.sample(Micros(126 * SECOND));
    let sent = found(&reading, Metric::NetSent);
    assert_eq!(sent.len(), 8);
    let named = |name: &str| sent.iter().any(|(part, _)| part == name);
    assert!(named("lowpan0") && !named("lo"));
}

/// Whatever stands in any of the files: no panic, and nothing that cannot be.
#[test]
fn a_tree_that_is_broken_in_any_place_never_tells_what_cannot_be() {
    let files = |tree: &Tree| {
        let (mut open, mut files) = (vec![tree.root().to_owned()], Vec::<PathBuf>::new());
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                match entry.path() {
                    path if path.is_dir() => open.push(path),
                    path => files.push(path),
                }
            }
        }
        files.sort();
        files
    };
    let mut rng = fastrand::Rng::with_seed(6);
    let tree = board();
    let all = files(&tree);
    for round in 0..50_u64 {
        counters(&tree, round % 7);
        let mut host = tree.host();
        host.sample(Micros(0));
        counters(&tree, 2 + round % 11);
        let mut whole = Vec::new();
        for _ in 0..3 {
            let path = &all[rng.usize(..all.len())];
            let text = fs::read(path).unwrap_or_default();
            let broken = match rng.u8(..8) {
                0 => Vec::new(),
                1 => text[..text.len() / 2].to_vec(),
                2 => vec![0xff; 64],
                3 => text.repeat(400),
                4 => b"-1\n".to_vec(),
                5 => b"18446744073709551616 99999999999999999999\n".to_vec(),
                6 => u64::MAX.to_string().into_bytes(),
                _ => String::from_utf8_lossy(&text)
                    .split(' ')
                    .map(|word| {
                        if rng.bool() {
                            word.into()
                        } else {
                            u64::MAX.to_string()
                        }
                    })
                    .collect::<Vec<_>>()
                    .join(" ")
                    .into_bytes(),
            };
            fs::write(path, broken).unwrap();
            whole.insert(0, (path, text));
        }
        host.glance(Micros(5 * SECOND));
        let reading = host.sample(Micros(10 * SECOND));
        for source in &reading.sources {
            let (least, most) = source.reading.metric.plausible();
            if let Reading::Fresh(value) = source.reading.reading {
                assert!((least..=most).contains(&value), "{source:?}");
            }
        }
        for (path, text) in whole {
            fs::write(path, text).unwrap();
        }
    }
}
