//! Who a user is, from `/etc/passwd`.
//!
//! Read by hand: the C library's lookup loads plugins, which a small static
//! root process must not. So users of a directory service are not found, and
//! services get no supplementary groups.

use std::fs::File;
use std::io::{self, Read as _};

/// Largest passwd file that is read.
const PASSWD_MAX: u64 = 1 << 20;

/// An entry of the passwd file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) home: String,
}

/// Looks up `name`.
pub(super) fn find(name: &str) -> io::Result<User> {
    let mut text = String::new();
    File::open("/etc/passwd")?
        .take(PASSWD_MAX)
        .read_to_string(&mut text)?;
    find_in(&text, name)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no user {name}")))
}

fn find_in(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let mut fields = fields.skip(1);
        Some(User {
            uid: fields.next()?.parse().ok()?,
            gid: fields.next()?.parse().ok()?,
            home: fields.nth(1)?.to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let passwd = "broken\nx:x:one:1::/:\ncam:x:7:8:A camera,,:/srv/cam:/bin/sh\n";
        let camera = User {
            uid: 7,
            gid: 8,
            home: "/srv/cam".into(),
        };
        assert_eq!(find_in(passwd, "cam"), Some(camera));
        for absent in ["ca", "came", "broken", "x", ""] {
            assert_eq!(find_in(passwd, absent), None, "{absent}");
        }
        assert_eq!(find("root").unwrap().uid, 0);
    }
}
