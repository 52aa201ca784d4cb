//! A node's part of a plan across nodes, on the simulated node: taken on, kept, taken
//! back alone, and after the agent's death.

use homeostat_agent::control::Command;
use homeostat_common::saga::{Fence, Order, Prepare, SagaId, Want};
use homeostat_common::units::{Millis, Ratio};
use homeostat_tests::sim::{Fault, Sim, Trace, secs};

/// Two replicas behind one route.
const NODE: &str = r#"
[node]
id = "n1"

[limits]
mode = "act"

[[service]]
id = "infer-1"
command = ["/bin/infer"]
ports = [9001]
start_timeout = "2s"
[[service.probe]]
kind = "tcp"
period = "100ms"
timeout = "50ms"

[[service]]
id = "infer-2"
command = ["/bin/infer"]
ports = [9002]
start_timeout = "2s"
[[service.probe]]
kind = "tcp"
period = "100ms"
timeout = "50ms"

[[forward]]
id = "infer"
listen = 9000
[[forward.backend]]
service = "infer-1"
[[forward.backend]]
service = "infer-2"
"#;

const PLAN: &str = "n1: isolate(infer, infer-1, drain=1s) ; n2: wait(1s)";

fn order(counter: u64, want: Want) -> Fault {
    Fault::SagaOrder(Order {
        saga: SagaId {
            by: "coordinator".parse().expect("a name"),
            number: 1,
        },
        fence: Fence { epoch: 1, counter },
        want,
    })
}

fn prepare(plan: &str, confidence: Option<Ratio>) -> Fault {
    let plan = plan.parse().expect("a plan");
    order(1, Want::Prepare(Prepare { plan, confidence }))
}

/// Its isolation runs from 11 s on.
fn begun() -> Sim {
    Sim::with(7, NODE)
        .at(secs(10), prepare(PLAN, None))
        .at(secs(11), order(2, Want::Go(vec![0])))
}

#[test]
fn each_step_is_a_line_and_the_story_outlives_the_agent() {
    let plan = "n1: isolate(infer, infer-1, drain=1s) ; n1: wait(25s) ; n2: wait(1s)";
    let sim = || {
        Sim::with(7, NODE)
            .at(secs(10), prepare(plan, None))
            .at(secs(11), order(2, Want::Go(vec![0])))
            .at(secs(13), order(3, Want::Go(vec![0, 1])))
            .at(secs(14), Fault::AskPart("coordinator-1"))
            .at(secs(15), order(4, Want::Abort))
            .at(secs(20), Fault::AgentKilled(secs(1)))
    };
    let trace = sim()
        .at(secs(30), Fault::AskPart("p9"))
        .at(secs(31), Fault::AskPart("1"))
        .run_until(secs(32));
    let notes = trace.of("note");
    let told = |what: &str| notes.iter().any(|note| note.ends_with(what));
    for line in [
        "isolate(infer, infer-1, drain=1s) done",
        "wait(25s) taken back",
        "isolate(infer, infer-1, drain=1s) taken back",
    ] {
        assert!(told(line), "{line}: {trace}");
    }
    let answers = trace.of("answer");
    assert_eq!(answers.len(), 3, "{trace}");
    assert!(answers[0].contains("wait(25s): runs"), "{trace}");
    assert!(answers[1].contains("no plan across nodes p9"), "{trace}");
    for part in [
        "coordinator-1 (p",
        "ordered by coordinator: taken back after",
        "isolate(infer, infer-1, drain=1s): taken back",
    ] {
        assert!(answers[2].contains(part), "{part}: {trace}");
    }
}

fn weights(trace: &Trace) -> String {
    let shown = trace.of("weights");
    shown
        .last()
        .map_or(String::new(), |text| (*text).to_owned())
}

fn said(trace: &Trace) -> String {
    let said = trace.of("say");
    said.last().map_or(String::new(), |text| (*text).to_owned())
}

#[test]
fn a_part_that_is_committed_stays() {
    let trace = begun()
        .at(secs(14), order(3, Want::Vote))
        .at(secs(15), order(4, Want::Commit))
        .at(secs(60), Fault::ShowWeights)
        .run_until(secs(60));
    assert_eq!(weights(&trace), "infer-1=0 infer-2=100", "{trace}");
    assert!(said(&trace).contains("Ended(Done"), "{trace}");
}

#[test]
fn alone_it_takes_its_part_back() {
    let trace = begun().at(secs(20), Fault::ShowWeights).run_until(secs(20));
    assert_eq!(weights(&trace), "infer-1=0 infer-2=100", "{trace}");
    let trace = begun().at(secs(30), Fault::ShowWeights).run_until(secs(30));
    assert_eq!(weights(&trace), "infer-1=100 infer-2=100", "{trace}");
    assert!(said(&trace).contains("Ended(Undone"), "{trace}");
}

#[test]
fn a_wait_that_is_taken_back_ends_at_once_and_one_too_long_is_refused() {
    let plan = "n1: isolate(infer, infer-1, drain=1s) ; n1: wait(25s) ; n2: wait(1s)";
    let trace = Sim::with(7, NODE)
        .at(secs(10), prepare(plan, None))
        .at(secs(11), order(2, Want::Go(vec![0])))
        .at(secs(13), order(3, Want::Go(vec![0, 1])))
        .at(secs(15), order(4, Want::Abort))
        .at(secs(17), Fault::ShowWeights)
        .run_until(secs(17));
    assert_eq!(weights(&trace), "infer-1=100 infer-2=100", "{trace}");
    assert!(said(&trace).contains("Ended"), "{trace}");
    let trace = Sim::with(7, NODE)
        .at(secs(10), prepare("n1: wait(9999h) ; n2: wait(1s)", None))
        .run_until(secs(12));
    assert!(said(&trace).contains("n1: wait(9999h) may take"), "{trace}");
}

/// An order of another plan, the second one.
fn second(counter: u64, want: Want) -> Fault {
    match order(counter, want) {
        Fault::SagaOrder(mut order) => {
            order.saga.number = 2;
            Fault::SagaOrder(order)
        }
        other => other,
    }
}

#[test]
fn a_plan_in_doubt_keeps_its_alarm_whatever_others_do_until_it_was_heard() {
    // Promised at 14 s and then alone: taken back at 29 s, and a person is called.
    let other = "n1: isolate(infer, infer-2, drain=1s) ; n2: wait(1s)";
    let plan = other.parse().expect("a plan");
    let ack = Fault::Order(Command::Ack {
        alarm: "saga".into(),
    });
    let told = begun()
        .at(secs(14), order(3, Want::Vote))
        .at(
            secs(100),
            second(
                1,
                Want::Prepare(Prepare {
                    plan,
                    confidence: None,
                }),
            ),
        )
        .at(secs(101), second(2, Want::Go(vec![0])))
        .at(secs(105), second(3, Want::Vote))
        .at(secs(106), second(4, Want::Commit))
        .at(secs(110), Fault::AgentKilled(secs(1)))
        .at(secs(280), ack)
        .notices_until(secs(400));
    let told: Vec<(u64, &str)> = told
        .iter()
        .map(|(at, text)| (at.0 / 1_000_000, text.as_str()))
        .filter(|(_, text)| text.contains("saga"))
        .collect();
    let words: Vec<&str> = told.iter().map(|(_, text)| *text).collect();
    let raised = "1 saga raised (0)";
    assert_eq!(
        words,
        [
            raised,
            raised,
            "1 saga acknowledged (0)",
            "1 saga cleared (0)"
        ],
        "{told:?}"
    );
    assert_eq!(
        (told[0].0, told[2].0, told[3].0),
        (29, 280, 280),
        "{told:?}"
    );
}

#[test]
fn a_part_outlives_the_agent_at_each_write() {
    let mut endings = std::collections::BTreeSet::new();
    for write in 1..40 {
        let trace = Sim::with(7, NODE)
            .at(secs(9), Fault::AgentKilledAtWrite(write, Millis(500)))
            .at(secs(10), prepare(PLAN, None))
            .at(secs(11), order(2, Want::Go(vec![0])))
            .at(secs(14), order(3, Want::Vote))
            .at(secs(15), order(4, Want::Commit))
            .at(secs(80), Fault::ShowWeights)
            .run_until(secs(80));
        let ending = match weights(&trace).as_str() {
            "infer-1=0 infer-2=100" => "Ended(Done",
            "infer-1=100 infer-2=100" => "Ended(Undone",
            other => panic!("{write}: {other}\n{trace}"),
        };
        let last = said(&trace);
        // One that died before it was prepared was never asked again here.
        let known = last.contains(ending) || last.ends_with("Unknown") || last.is_empty();
        assert!(known, "{write}: {last}\n{trace}");
        endings.insert(ending);
    }
    // Some deaths cut the part short, some came too late for that.
    assert_eq!(endings.len(), 2, "{endings:?}");
}

#[test]
fn a_part_that_the_gate_refuses_is_refused_with_its_reason() {
    let twice = "n1: isolate(infer, infer-1, drain=1s) ; n1: isolate(infer, infer-2, drain=1s) ; n2: wait(1s)";
    let trace = Sim::with(7, NODE)
        .at(secs(10), prepare(twice, None))
        .run_until(secs(12));
    assert!(said(&trace).contains("last-backend"), "{trace}");
    let doubtful = "n1: restart(infer-1, grace=1s) ; n2: wait(1s)";
    let trace = Sim::with(7, NODE)
        .at(secs(10), prepare(doubtful, Ratio::new(0.4).ok()))
        .run_until(secs(12));
    assert!(said(&trace).contains("below 0.5"), "{trace}");
}

#[test]
fn a_node_leads_a_plan_that_outlives_it_at_each_write() {
    let own = "n1: isolate(infer, infer-1, drain=1s)";
    let trace = Sim::with(7, NODE)
        .at(secs(10), Fault::AskAcross(own))
        .at(secs(30), Fault::ShowWeights)
        .run_until(secs(30));
    assert_eq!(weights(&trace), "infer-1=0 infer-2=100", "{trace}");
    let mut ends = std::collections::BTreeSet::new();
    for write in 1..60 {
        let trace = Sim::with(7, NODE)
            .at(secs(9), Fault::AgentKilledAtWrite(write, Millis(500)))
            .at(secs(10), Fault::AskAcross(own))
            .at(secs(80), Fault::ShowWeights)
            .run_until(secs(80));
        let done = trace.to_string().contains(": all done");
        let expected = match weights(&trace).as_str() {
            // Killed after the end was stored, it is not told again.
            "infer-1=0 infer-2=100" => true,
            // It died before it was stored, or it was taken back.
            "infer-1=100 infer-2=100" => !done,
            other => panic!("{write}: {other}\n{trace}"),
        };
        assert!(expected, "{write}\n{trace}");
        ends.insert(done);
    }
    assert_eq!(ends.len(), 2, "{ends:?}");
}
