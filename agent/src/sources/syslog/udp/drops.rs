//! What the kernel dropped of a socket for datagrams, as it tells in `/proc/net/udp` and `/proc/net/udp6`.
//!
//! # Limits
//! Of a table [`TABLE_BYTES_MAX`] are read; where there is none, nothing is counted.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use super::Figure;
use crate::sources::syslog::SyslogStats;

/// Where the kernel lists sockets of IPv4 and IPv6, of this process's network.
const TABLES: [&str; 2] = ["/proc/self/net/udp", "/proc/self/net/udp6"];

/// Most bytes of a table: 128 a line, so 32,768 sockets.
const TABLE_BYTES_MAX: u64 = 4 << 20;

/// The drops of one socket.
#[derive(Debug)]
pub(super) struct Drops {
    inode: Option<u64>,
    /// As the kernel counts: up to 2^32, and from 0 again.
    seen: u32,
}

impl Drops {
    /// Returns those of a socket.
    pub(super) fn of(socket: impl AsFd) -> Self {
        Self { inode: rustix::fs::fstat(socket).ok().map(|of| of.st_ino), seen: 0 }
    }

    /// Counts what was dropped since the last look.
    pub(super) fn look(&mut self, stats: &SyslogStats) {
        let Some(inode) = self.inode else { return };
        if let Some(now) = TABLES.iter().find_map(|path| listed(&read(path), inode)) {
            stats.add(Figure::KernelDrops, now.wrapping_sub(self.seen).into());
            self.seen = now;
        }
    }
}

fn read(path: &str) -> String {
    let mut table = Vec::new();
    // What cannot be read lists nothing.
    let table = File::open(path).and_then(|file| file.take(TABLE_BYTES_MAX).read_to_end(&mut table)).map(|_| table);
    table.map_or_else(|_| String::new(), |table| String::from_utf8_lossy(&table).into_owned())
}

/// Returns the drops of a socket that a table lists.
fn listed(table: &str, inode: u64) -> Option<u32> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let is_it = fields.nth(9)?.parse::<u64>().is_ok_and(|listed| listed == inode);
        is_it.then(|| fields.nth(2)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops             
  341: 0100007F:0202 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 81234 2 0000000000000000 17        
  342: 00000000:0203 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 1234 2 0000000000000000 4294967295
";

    #[test]
    fn drops_are_those_of_the_socket_that_is_listed() {
        assert_eq!((listed(TABLE, 81234), listed(TABLE, 1234)), (Some(17), Some(u32::MAX)));
        for (table, inode) in
            [(TABLE, 0), (TABLE, 17), ("", 1234), ("sl\n1 2 3", 3), ("a\n0 1 2 3 4 5 6 7 8 9 0 1 x\n", 9)]
        {
            assert_eq!(listed(table, inode), None, "{table:?}");
        }
    }

    #[test]
    fn a_counter_that_begins_anew_counts_on() {
        let (stats, mut drops) = (SyslogStats::default(), Drops { inode: None, seen: u32::MAX - 1 });
        drops.look(&stats);
        assert_eq!(stats.figure(Figure::KernelDrops), 0);
        assert_eq!(3_u32.wrapping_sub(drops.seen), 5);
    }

    #[test]
    fn what_the_kernel_drops_of_a_socket_that_is_not_read_is_counted() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
        let (stats, mut drops) = (SyslogStats::default(), Drops::of(&socket));
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..1000 {
            sender.send_to(&[b'x'; 1000], socket.local_addr().unwrap()).unwrap();
        }
        drops.look(&stats);
        socket.set_nonblocking(true).unwrap();
        let mut read = 0;
        while socket.recv(&mut [0; 1000]).is_ok() {
            read += 1;
        }
        assert!(read > 0 && read < 1000);
        assert_eq!(stats.figure(Figure::KernelDrops), 1000 - read, "what is not read was dropped, and counted");
        drops.look(&stats);
        assert_eq!(stats.figure(Figure::KernelDrops), 1000 - read);
    }
}
