//! Where a receiver is.

use std::str::FromStr;

/// A receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Name or address; an IPv6 address without brackets.
    pub host: String,
    /// Default 80.
    pub port: u16,
    /// Path and query.
    pub path: String,
}

/// Why a text leads to no receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It is of another form.
    #[error("expected http://HOST[:PORT][/PATH], printable ASCII")]
    Form,
    /// It wants TLS.
    #[error(
        "expected http://: there is no TLS here; send it to a relay on this node that speaks https"
    )]
    Tls,
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.starts_with("https://") {
            return Err(UrlError::Tls);
        }
        let rest = text.strip_prefix("http://").ok_or(UrlError::Form)?;
        let (place, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match place.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']').ok_or(UrlError::Form)?;
                let v6 = host.parse::<std::net::Ipv6Addr>();
                v6.map_err(|_| UrlError::Form)?;
                (host, port)
            }
            None => place.split_at(place.find(':').unwrap_or(place.len())),
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port > 0),
            None if port.is_empty() => Some(80),
            None => None,
        };
        if host.is_empty() || !host.chars().all(fits) || !path.bytes().all(|b| b.is_ascii_graphic())
        {
            return Err(UrlError::Form);
        }
        Ok(Self {
            host: host.to_owned(),
            port: port.ok_or(UrlError::Form)?,
            path: if path.is_empty() { "/" } else { path }.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_port_and_path_are_told_apart_and_nothing_else_is_taken() {
        let read = |text: &str| {
            text.parse::<Url>()
                .map(|url| (url.host, url.port, url.path))
        };
        let url = |host: &str, port, path: &str| Ok((host.to_owned(), port, path.to_owned()));
        assert_eq!(read("http://[::1]:8080/a?b=c"), url("::1", 8080, "/a?b=c"));
        assert_eq!(read("http://pager"), url("pager", 80, "/"));
        assert_eq!(read("http://10.0.0.1:9/x"), url("10.0.0.1", 9, "/x"));
        assert_eq!(read("https://pager/x"), Err(UrlError::Tls));
        for wrong in [
            "",
            "pager",
            "http://",
            "http://a:0/",
            "http://a:70000/",
            "http://a/\r\nX: y",
            "http://a b/",
            "http://[::1/",
            "http://[x]/",
            "http://u@h/",
        ] {
            assert_eq!(read(wrong), Err(UrlError::Form), "{wrong:?}");
        }
    }
}
