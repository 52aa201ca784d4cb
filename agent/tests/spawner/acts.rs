//! What is done to a life that goes on: frozen and let go, given a share of the
//! processors.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use homeostat_agent::io::spawner::client::{Client, Event};
use homeostat_agent::io::spawner::protocol::{Exit, ProcessAct, StopSignal};
use homeostat_common::ids::{Instance, PlanId, ServiceId, Token};
use homeostat_common::units::Percent;

use crate::node::{Node, died, exited, id, next, run, start, until};

const BUSY: &str = "while :; do :; done";

fn token(plan: u64) -> Token {
    Token {
        plan: PlanId(plan),
        step: 0,
        undo: false,
    }
}

/// Has something done, and waits for its answer.
async fn act(
    client: &mut Client,
    plan: u64,
    (service, life): (&ServiceId, Instance),
    act: ProcessAct,
) -> Option<String> {
    client.act(token(plan), service, life, act).await.unwrap();
    match next(client).await {
        Event::Acted { token: of, failed } if of == token(plan) => failed,
        other => panic!("{other:?}"),
    }
}

fn state(pid: u32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    rest.chars().next().unwrap()
}

/// Ticks of processor time that a process has used.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = rest.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_frozen_life_stands_still_and_ends_when_it_is_asked_to() {
    let mut node = Node::new(&[("a", BUSY)]);
    node.spawner(&[]);
    run(async {
        let (mut client, _) = node.connect().await;
        let a = id("a");
        let (life, pid) = start(&mut client, &a).await;
        let it = (&a, life);
        assert_eq!(act(&mut client, 1, it, ProcessAct::Freeze).await, None);
        assert_eq!(act(&mut client, 1, it, ProcessAct::Freeze).await, None);
        until("it stands still", || state(pid) == 'T').await;
        assert_eq!(act(&mut client, 2, it, ProcessAct::Thaw).await, None);
        until("it goes on", || state(pid) == 'R').await;
        let former = (&a, Instance(life.0 + 1));
        let failed = act(&mut client, 3, former, ProcessAct::Freeze).await;
        assert_eq!(failed.as_deref(), Some("that life is over"));
        assert_eq!(act(&mut client, 4, it, ProcessAct::Freeze).await, None);
        // A frozen process would not hear of it.
        client.signal(&a, life, StopSignal::Term).await.unwrap();
        let mut seen = [next(&mut client).await, next(&mut client).await];
        seen.sort_by_key(|event| matches!(event, Event::Died { .. }));
        assert_eq!(seen[1], died(&a, life));
        assert_eq!(next(&mut client).await, exited(&a, life, Exit::Signal(15)));
    });
}

#[test]
fn a_share_of_the_processors_is_kept_to_until_it_is_lifted() {
    let mut node = Node::new(&[("a", BUSY)]);
    node.spawner(&[]);
    run(async {
        let (mut client, _) = node.connect().await;
        let a = id("a");
        let (life, pid) = start(&mut client, &a).await;
        let it = (&a, life);
        let cores = std::thread::available_parallelism().unwrap().get();
        // A tenth of one core, whatever their number.
        let share = Percent::new(u8::try_from(10_usize.div_ceil(cores)).unwrap()).unwrap();
        let limit = ProcessAct::LimitCpu(Some(share));
        if let Some(why) = act(&mut client, 1, it, limit).await {
            println!("skip: no share can be set here: {why}");
            return;
        }
        let used = |span: Duration| {
            let (begun, before) = (Instant::now(), ticks(pid));
            std::thread::sleep(span);
            // A tick is a hundredth of a second on every machine of today.
            (ticks(pid) - before) as f64 / 100.0 / begun.elapsed().as_secs_f64()
        };
        let bound = 0.01 * f64::from(share.get()) * cores as f64;
        let limited = used(Duration::from_secs(2));
        assert!(limited <= bound + 0.06, "{limited} of {bound} cores");
        assert_eq!(
            act(&mut client, 2, it, ProcessAct::LimitCpu(None)).await,
            None
        );
        // Others want the processors as well: more than before is all that is sure.
        let free = used(Duration::from_secs(1));
        assert!(free > bound + 0.1, "{free} cores");
    });
}
