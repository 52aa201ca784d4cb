use super::*;

fn certificate(name: &str, steps: u8) -> Certificate {
    let topology = Arc::new(Topology::reference());
    let incident = Incident::named(name).unwrap();
    let depth = Depth {
        steps,
        ..Depth::default()
    };
    Certificate::of(&topology, &incident, depth).unwrap()
}

#[test]
fn a_bad_model_in_one_slot_takes_one_step() {
    let certificate = certificate("corrupt-model", 1);
    assert!(certificate.was_incident);
    assert_eq!((certificate.least, certificate.exact), (Some(1), true));
    // To take it out of its route serves users as well; the root stays.
    for step in ["rollback-model(infer-1", "isolate(infer, infer-1"] {
        let found = certificate.plans.iter().any(|plan| plan.contains(step));
        assert!(found, "{:?}", certificate.plans);
    }
}

#[test]
fn what_ends_by_itself_needs_nothing_and_what_nobody_mends_has_no_plan() {
    let topology = Arc::new(Topology::reference());
    let none = Certificate::of(&topology, &Incident::none(), Depth::default()).unwrap();
    assert_eq!((none.was_incident, none.least), (false, Some(0)));
    let down = certificate("outside-api-down", 1);
    assert_eq!((down.was_incident, down.least), (true, None));
    assert_eq!(down.length(), ">1");
}

#[test]
fn the_same_search_finds_the_same() {
    assert_eq!(certificate("clock-skew", 1), certificate("clock-skew", 1));
}

#[test]
fn what_only_a_storm_makes_long_is_told_apart() {
    // A store that starts anew one replica after the other loses nothing that stays lost; who
    // was not served meanwhile comes again.
    let text = r#"
name = "restarts"
about = "Two replicas hang; all that is to be done is to start them anew."
topology = "reference"
[[fault]]
id = "a"
mechanism = "hang"
locus = "service store"
"#;
    let topology = Arc::new(Topology::reference());
    let incident = Incident::read("restarts.toml", text).unwrap();
    let depth = Depth {
        steps: 2,
        ..Depth::default()
    };
    let certificate = Certificate::of(&topology, &incident, depth).unwrap();
    assert_eq!((certificate.least, certificate.apart), (None, Some(2)));
    assert!(certificate.storms() && certificate.hard());
    let line = certificate.line();
    assert!(line.starts_with("restarts\treference\t>2\t2\t"), "{line}");
}
