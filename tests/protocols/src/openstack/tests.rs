//! On made-up recordings in the same layout, and on the real ones where they are.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// Twelve runs of each class: healthy ones vary a little, failed ones lack events and have
/// errors of their own.
fn made_up(folder: &Path) {
    for (name, classes) in [
        (
            "DEPL",
            &["ssh_failure", "volume_failure", "network_failure"][..],
        ),
        ("NET", &["ssh_failure", "network_failure"]),
        ("STO", &["volume_failure", "network_failure"]),
    ] {
        let mut rng = fastrand::Rng::with_seed(name.len() as u64);
        let events = [
            "vol_create",
            "vol_create_ERROR",
            "net_GET_200",
            "net_GET_500",
            "ssh_open",
        ];
        let mut counts = events.join(",") + "\n";
        let mut lcs: String = ["spurious:", "missing:"]
            .iter()
            .flat_map(|kind| events.map(|event| format!("{kind}{event}")))
            .collect::<Vec<_>>()
            .join(",")
            + "\n";
        let folds: Vec<String> = (0..data::REPEATS)
            .map(|at| format!("fold_rep{at}"))
            .collect();
        let mut labels = format!(
            "row,label,label_name,is_failure,{},identical_seq_group,identical_lcs_group\n",
            folds.join(",")
        );
        let all = ["no_failure", "no_failure"].iter().chain(classes);
        for (row, label) in all
            .flat_map(|label| std::iter::repeat_n(label, 12))
            .enumerate()
        {
            let some = rng.u32(8..12);
            let run = match *label {
                "ssh_failure" => [1, 0, some, 0, 0],
                "volume_failure" => [0, 2, some, 0, 1],
                "network_failure" => [1, 0, 2, 4, 1],
                _ => [1, 0, some, 0, 1],
            };
            let cells = |values: &[u32]| {
                values
                    .iter()
                    .map(u32::to_string)
                    .collect::<Vec<_>>()
                    .join(",")
            };
            counts += &(cells(&run) + "\n");
            let healthy = [1, 0, 10, 0, 1_u32];
            let more = run
                .iter()
                .zip(healthy)
                .map(|(own, usual)| own.saturating_sub(usual));
            let fewer = run
                .iter()
                .zip(healthy)
                .map(|(own, usual)| usual.saturating_sub(*own));
            lcs += &(cells(&more.chain(fewer).collect::<Vec<u32>>()) + "\n");
            let folds: Vec<String> = (0..data::REPEATS)
                .map(|at| ((row + at) % 5).to_string())
                .collect();
            let failed = u8::from(*label != "no_failure");
            let _ = writeln!(
                labels,
                "{row},0,{label},{failed},{},{row},{row}",
                folds.join(",")
            );
        }
        for (kind, text) in [("seq", counts), ("lcs_vmm", lcs), ("labels", labels)] {
            let file = File::create(folder.join(format!("{name}_{kind}.csv.gz"))).unwrap();
            let mut packed = GzEncoder::new(file, Compression::fast());
            packed.write_all(text.as_bytes()).unwrap();
            packed.finish().unwrap();
        }
    }
}

fn value(report: &Report, id: &str) -> f64 {
    let row = report.rows.iter().find(|row| row.id == id);
    row.unwrap_or_else(|| panic!("no row {id}")).ours
}

#[test]
fn the_protocols_run_on_any_recordings_of_the_layout() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("openstack_failures");
    std::fs::create_dir(&folder).unwrap();
    made_up(&folder);
    // One workload of each protocol: the rest is the same code on other files.
    let read = |name| Workload::read(&folder, name, Kind::Seq).unwrap();
    let (depl, net) = (read("DEPL"), read("NET"));
    let mut report = Report::new("test", "");
    report
        .rows
        .extend(supervised::grouped(&depl, Kind::Seq, 1).unwrap());
    report
        .rows
        .extend(unseen::one_left_out(&net, Kind::Seq, 1).unwrap());
    report
        .rows
        .extend(unseen::healthy_only(&depl, Kind::Seq, 1).unwrap());
    report
        .rows
        .extend(transfer::pairs(&[depl, net], 1).unwrap());
    assert!(value(&report, "openstack.depl.seq.grouped.f1") > 0.99);
    assert!(value(&report, "openstack.depl.seq.grouped.macro-f1") > 0.99);
    assert!(value(&report, "openstack.net.seq.unseen.ssh") > 0.99);
    assert!(value(&report, "openstack.depl.seq.healthy-only.auroc") > 0.99);
    assert!(value(&report, "openstack.transfer.mean") > 0.8);
    // Five events say less than a hundred, yet more than a guess.
    assert!(value(&report, "openstack.transfer.depl-net.always") < 0.8);
    let lcs = Workload::read(&folder, "STO", Kind::Lcs).unwrap();
    assert_eq!((lcs.runs.len(), lcs.runs[0].len()), (48, 10));
    assert!(table("STO", Kind::Lcs, [[0.0; 3], [1.0, 2.0, 3.0]]) == Some(3.0));
}

#[test]
fn files_that_do_not_fit_are_told_by_name() {
    let dir = tempfile::tempdir().unwrap();
    made_up(dir.path());
    let missing = Workload::read(dir.path(), "OTHER", Kind::Seq).unwrap_err();
    assert!(
        missing.to_string().contains("OTHER_seq.csv.gz"),
        "{missing}"
    );
    std::fs::copy(
        dir.path().join("NET_seq.csv.gz"),
        dir.path().join("DEPL_seq.csv.gz"),
    )
    .unwrap();
    let wrong = Workload::read(dir.path(), "DEPL", Kind::Seq).unwrap_err();
    assert_eq!(
        wrong.to_string(),
        "DEPL_seq.csv.gz has 48 rows and DEPL_labels.csv.gz 60"
    );
    std::fs::copy(
        dir.path().join("NET_labels.csv.gz"),
        dir.path().join("NET_seq.csv.gz"),
    )
    .unwrap();
    let text = format!(
        "{:#}",
        Workload::read(dir.path(), "NET", Kind::Seq).unwrap_err()
    );
    assert!(
        text.contains("label_name: \"no_failure\" is no count"),
        "{text}"
    );
}

#[test]
fn real_runs_of_the_network_workload_are_told_apart() {
    let Some(data) = std::env::var_os("HOMEOSTAT_DATA") else {
        println!("skip: HOMEOSTAT_DATA names no folder with the recordings");
        return;
    };
    let folder = Path::new(&data).join("openstack_failures");
    let net = Workload::read(&folder, "NET", Kind::Seq).unwrap();
    assert_eq!((net.runs.len(), net.places(true).len()), (561, 262));
    let rows = unseen::healthy_only(&net, Kind::Seq, 1).unwrap();
    assert!(rows[0].ours > 0.97, "{:?}", rows[0]);
}
