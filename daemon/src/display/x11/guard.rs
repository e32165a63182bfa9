//! Bounds on what an X server may make us keep.
//!
//! The server's side is a process of the sandbox. The X library reserves
//! memory for a packet as soon as it has read the packet's length, which may
//! say 16 GiB; so the lengths are checked before the library sees them.

use std::io;

/// Longest packet: a title of 4 KiB needs less, the list of all windows needs
/// four bytes for each.
const MAX_PACKET_BYTES: u64 = 1 << 20;
/// Most bytes in the life of a connection: a wait of ten minutes on a busy
/// desktop reads a few hundred kilobytes.
const MAX_TOTAL_BYTES: u64 = 64 << 20;
/// Bytes that hold the length in every kind of packet.
const HEAD_BYTES: usize = 8;
/// Least size of a packet.
const PACKET_BYTES: u64 = 32;
/// Kind of a reply; its bytes 4..8 say how many words follow the first 32 bytes.
const REPLY: u8 = 1;
/// Kind of a generic event; has such a length as well.
const GENERIC_EVENT: u8 = 35;
/// Bit of an event's kind that says that a client sent it.
const SENT: u8 = 0x80;

/// Follows the packets of one connection, after its handshake.
#[derive(Debug, Default)]
pub(super) struct PacketGuard {
    head: [u8; HEAD_BYTES],
    head_len: usize,
    rest_bytes: u64,
    total_bytes: u64,
}

impl PacketGuard {
    /// Looks at the next bytes that the server sent.
    ///
    /// # Errors
    /// `InvalidData` if a packet or the whole passes its bound.
    pub(super) fn admit(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.total_bytes += bytes.len() as u64;
        if self.total_bytes > MAX_TOTAL_BYTES {
            return Err(too_much("the X server sent more than a wait can need"));
        }
        while !bytes.is_empty() {
            let skipped = self.rest_bytes.min(bytes.len() as u64);
            self.rest_bytes -= skipped;
            bytes = bytes.get(skipped as usize..).unwrap_or_default();
            let taken = (HEAD_BYTES - self.head_len).min(bytes.len());
            self.head[self.head_len..self.head_len + taken].copy_from_slice(&bytes[..taken]);
            self.head_len += taken;
            bytes = &bytes[taken..];
            if self.head_len == HEAD_BYTES {
                self.head_len = 0;
                self.rest_bytes = self.rest_of_packet();
                if self.rest_bytes > MAX_PACKET_BYTES {
                    return Err(too_much("the X server announced an oversized packet"));
                }
            }
        }
        Ok(())
    }

    /// Bytes that follow the head; numbers are in our own byte order, which
    /// the handshake declared.
    fn rest_of_packet(&self) -> u64 {
        let [kind, _, _, _, length @ ..] = self.head;
        let extra =
            if kind == REPLY || kind & !SENT == GENERIC_EVENT { 4 * u64::from(u32::from_ne_bytes(length)) } else { 0 };
        PACKET_BYTES - HEAD_BYTES as u64 + extra
    }
}

fn too_much(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event, then a reply with so many words after its first 32 bytes.
    fn conversation(reply_words: u32) -> Vec<u8> {
        let mut event = [0xffu8; 32];
        event[0] = 28;
        let mut reply = [0xffu8; 32];
        reply[0] = REPLY;
        reply[4..8].copy_from_slice(&reply_words.to_ne_bytes());
        [event, reply].concat()
    }

    #[test]
    fn lengths_are_found_however_the_bytes_are_cut() {
        for piece in 1..70 {
            let mut bytes = conversation(5);
            bytes.extend([0xff; 20]);
            bytes.extend(&conversation(5)[..32]);
            let mut guard = PacketGuard::default();
            for part in bytes.chunks(piece) {
                guard.admit(part).unwrap();
            }
            assert_eq!((guard.rest_bytes, guard.head_len), (0, 0), "pieces of {piece}");
        }
    }

    #[test]
    fn an_oversized_reply_is_refused_before_it_comes() {
        let error = PacketGuard::default().admit(&conversation(u32::MAX)).unwrap_err();
        assert_eq!(error.to_string(), "the X server announced an oversized packet");
    }

    #[test]
    fn a_flood_of_small_packets_is_refused_in_the_end() {
        let mut guard = PacketGuard::default();
        let events = conversation(0).repeat(512);
        let admitted = (0..4096).take_while(|_| guard.admit(&events).is_ok()).count();
        assert_eq!(admitted as u64, MAX_TOTAL_BYTES / events.len() as u64);
    }
}
