//! A node to test with, and words to say what is expected of it.

// The lint sees no test in here; a failure of a helper is one of its test.
#![allow(clippy::unwrap_used)]

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use homeostat_agent::io::spawner::client::{Client, Event};
use homeostat_agent::io::spawner::protocol::{Exit, Refusal, SlotView};
use homeostat_agent::io::spawner::socket_path;
use homeostat_common::ids::{Instance, ServiceId};
use homeostat_common::units::Millis;
use rustix::process::{Pid, Signal};

/// Far more than anything here takes, so that a failure shows as one.
const PATIENCE: Duration = Duration::from_secs(10);

/// A node in a folder of its own, with a spawner that is a real process.
pub(crate) struct Node {
    pub(crate) folder: tempfile::TempDir,
    spawner: Option<Child>,
}

impl Node {
    pub(crate) fn new(services: &[(&str, &str)]) -> Self {
        let node = Self {
            folder: tempfile::tempdir().unwrap(),
            spawner: None,
        };
        node.write(services);
        node
    }

    pub(crate) fn write(&self, services: &[(&str, &str)]) {
        let at = self.folder.path().display();
        let mut text =
            format!("[node]\nid = \"edge-1\"\ndata_dir = \"{at}/data\"\nrun_dir = \"{at}/run\"\n");
        for (id, script) in services {
            text += &format!(
                "[[service]]\nid = \"{id}\"\ncommand = [\"/bin/sh\", \"-c\", '''cd {at}; {script}''', \"sh\"]\nstop_grace = \"100ms\"\n"
            );
        }
        std::fs::write(self.folder.path().join("agent.toml"), text).unwrap();
    }

    pub(crate) fn append(&self, lines: &str) {
        let file = self.folder.path().join("agent.toml");
        let text = std::fs::read_to_string(&file).unwrap() + lines;
        std::fs::write(file, text).unwrap();
    }

    pub(crate) fn broken_service(&self, id: &str) {
        self.append(&format!(
            "[[service]]\nid = \"{id}\"\ncommand = [\"/no/such\"]\n"
        ));
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    pub(crate) fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_homeostat-agent"));
        command
            .args(["spawn", "--config"])
            .arg(self.folder.path().join("agent.toml"))
            .args(more)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn spawner(&mut self, more: &[&str]) {
        let command = self.command(more);
        self.launch(command).unwrap();
    }

    /// One that cannot read the kernel's log, as in a container or as another user.
    pub(crate) fn spawner_without_log(&mut self) {
        let own = self.command(&[]);
        let mut command = Command::new("unshare");
        command
            .args(["-m", "/bin/sh", "-c"])
            .arg("mount --bind /dev/null /dev/kmsg; exec \"$@\"")
            .args(["sh".as_ref(), own.get_program()])
            .args(own.get_args());
        self.launch(command).unwrap();
    }

    pub(crate) fn launch(&mut self, mut command: Command) -> std::io::Result<()> {
        self.spawner = Some(command.stderr(Stdio::null()).spawn()?);
        Ok(())
    }

    pub(crate) fn spawner_pid(&mut self) -> u32 {
        let spawner = self.spawner.as_mut().unwrap();
        assert!(spawner.try_wait().unwrap().is_none(), "the spawner ended");
        spawner.id()
    }

    pub(crate) fn kill_spawner(&mut self) {
        let mut spawner = self.spawner.take().unwrap();
        spawner.kill().unwrap();
        spawner.wait().unwrap();
    }

    pub(crate) fn stop_spawner(&mut self) {
        let mut spawner = self.spawner.take().unwrap();
        let pid = Pid::from_child(&spawner);
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        assert!(spawner.wait().unwrap().success());
    }

    pub(crate) async fn connect(&self) -> (Client, Vec<SlotView>) {
        Client::connect_within(&self.run_dir(), Millis::secs(10))
            .await
            .unwrap()
    }

    pub(crate) fn children(&self) -> Vec<u32> {
        let pid = self.spawner.as_ref().unwrap().id();
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        text.split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect()
    }

    /// Live processes of `service` and the life they belong to.
    pub(crate) fn marked(&self, service: &ServiceId) -> Vec<(u32, Instance)> {
        let mark = format!("HOMEOSTAT_SLOT={}:{service}:", self.run_dir().display());
        let pids = std::fs::read_dir("/proc").unwrap();
        let pids = pids.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        pids.filter_map(|pid: u32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
            let environment = String::from_utf8_lossy(&environment).into_owned();
            let life = environment
                .split('\0')
                .find_map(|it| it.strip_prefix(&mark))?;
            Some((pid, Instance(life.parse().ok()?)))
        })
        .collect()
    }
}

impl Drop for Node {
    /// Ends every service, also of a spawner that was killed.
    fn drop(&mut self) {
        if let Some(mut spawner) = self.spawner.take() {
            let _ = spawner.kill();
            let _ = spawner.wait();
        }
        // Nothing that it could adopt, so a new one ends whatever there is.
        let _ = std::fs::remove_file(self.run_dir().join("spawner/slots"));
        self.write(&[]);
        let _ = std::os::unix::fs::chown(
            self.folder.path().join("agent.toml"),
            Some(rustix::process::geteuid().as_raw()),
            None,
        );
        let _ = std::fs::remove_dir_all(self.run_dir());
        if let Ok(mut last) = self.command(&[]).stderr(Stdio::null()).spawn() {
            let begun = Instant::now();
            while !socket_path(&self.run_dir()).exists() && begun.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(1));
            }
            let _ = last.kill();
            let _ = last.wait();
        }
    }
}

pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

pub(crate) async fn next(client: &mut Client) -> Event {
    let next = tokio::time::timeout(PATIENCE, client.next()).await;
    next.expect("an event in time").unwrap()
}

pub(crate) async fn start(client: &mut Client, service: &ServiceId) -> (Instance, u32) {
    client.start(service).await.unwrap();
    started(next(client).await, service)
}

pub(crate) fn started(event: Event, wanted: &ServiceId) -> (Instance, u32) {
    match event {
        Event::Started {
            service,
            instance,
            pid,
        } if service == *wanted => (instance, pid),
        other => panic!("expected a start of {wanted}, got {other:?}"),
    }
}

pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) fn id(name: &str) -> ServiceId {
    ServiceId::new(name).unwrap()
}

pub(crate) fn died(service: &ServiceId, instance: Instance) -> Event {
    Event::Died {
        service: service.clone(),
        instance,
    }
}

pub(crate) fn exited(service: &ServiceId, instance: Instance, status: Exit) -> Event {
    Event::Exited {
        service: service.clone(),
        instance,
        status,
    }
}

pub(crate) fn refused(service: &ServiceId, why: Refusal) -> Event {
    let service = service.clone();
    Event::Refused { service, why }
}

pub(crate) fn pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

pub(crate) fn kill(process: u32) {
    let _ = rustix::process::kill_process(pid(process), Signal::KILL);
}

/// Whether it runs; a zombie does not.
pub(crate) fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// A bare socket to the spawner.
pub(crate) fn raw(run_dir: &Path) -> OwnedFd {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
    let begun = Instant::now();
    loop {
        let fd = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        let address = SocketAddrUnix::new(socket_path(run_dir)).unwrap();
        match connect(fd.as_fd(), &address) {
            Ok(()) => return fd,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Why it did not start.
pub(crate) async fn not_started(client: &mut Client, name: &str) -> String {
    client.start(&id(name)).await.unwrap();
    loop {
        match next(client).await {
            Event::Exited { .. } => {}
            Event::Refused {
                why: Refusal::Spawn { text },
                service,
            } => {
                assert_eq!(service, id(name));
                return text;
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// Starts a service that ends at once with `code`. Whether it is seen alive is a matter of
/// microseconds; if it is not, the refusal has to say `words`.
pub(crate) async fn ends_at_once(client: &mut Client, name: &str, code: i32, words: &str) {
    let service = id(name);
    client.start(&service).await.unwrap();
    match next(client).await {
        Event::Refused {
            why: Refusal::Spawn { text },
            ..
        } => assert!(text.contains(words), "{text}"),
        event => {
            let (life, _) = started(event, &service);
            assert_eq!(ended(client, &service, life).await, Exit::Code(code));
        }
    }
}

/// Waits for the end of `life`, and says how it ended.
pub(crate) async fn ended(client: &mut Client, service: &ServiceId, life: Instance) -> Exit {
    loop {
        match next(client).await {
            Event::Exited {
                service: of,
                instance,
                status,
            } if of == *service => {
                assert_eq!(instance, life);
                return status;
            }
            Event::Died { .. } | Event::Signalled { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// How many lives in a row are ended and measured; `LIVES` says how many.
pub(crate) fn lives() -> usize {
    let asked = std::env::var("LIVES").ok();
    asked.and_then(|asked| asked.parse().ok()).unwrap_or(8)
}

/// Prints what was measured in `what`.
pub(crate) fn report(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let ms = |at: usize| took[at].as_secs_f64() * 1e3;
    let (n, last) = (took.len(), took.len() - 1);
    println!(
        "{what}: {:.1} ms median, {:.1} to {:.1}, n = {n}",
        ms(n / 2),
        ms(0),
        ms(last)
    );
}

/// Control groups of one test alone, so that nobody finds another's.
pub(crate) struct Groups {
    /// Below each root.
    pub(crate) name: String,
    roots: Vec<PathBuf>,
}

impl Groups {
    /// In each of `hierarchies`.
    pub(crate) fn make(hierarchies: &[&str], test: &str) -> Result<Self, String> {
        let mut groups = Self::within(hierarchies, test);
        let roots = std::mem::take(&mut groups.roots);
        for root in roots {
            let group = root.join(&groups.name);
            std::fs::create_dir(&group).map_err(|error| format!("{}: {error}", group.display()))?;
            groups.roots.push(root);
        }
        Ok(groups)
    }

    /// A name for what somebody else makes, in `hierarchies` or others.
    pub(crate) fn within(hierarchies: &[&str], test: &str) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let test = test.rsplit("::").next().unwrap();
        Self {
            name: format!("homeostat-test-{}-{test}", std::process::id()),
            roots: hierarchies.iter().map(|at| root.join(at)).collect(),
        }
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.roots.iter().map(|root| root.join(&self.name))
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        fn remove(group: &Path) {
            for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    remove(&entry.path());
                }
            }
            // The last process of it may still be on its way out.
            for _ in 0..100 {
                if !group.exists() || std::fs::remove_dir(group).is_ok() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        for group in self.paths() {
            remove(&group);
        }
    }
}
