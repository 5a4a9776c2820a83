//! Ethernet II frames and 802.1Q tags.
//!
//! ```text
//!  0                 6                 12        14
//! ├─ destination ───┼─ source ────────┼─ type ──┼─ payload …
//!                                     ├─ 0x8100 ┼─ PCP DEI VID ┼─ type ──┼─ payload …   tagged
//! ```

use super::{array_at, be16, chunk_at};
use crate::counters::DropReason;
use crate::link::MacAddr;

/// Length of an untagged header, in bytes.
pub const HEADER_LEN: usize = 14;
/// Length of one 802.1Q tag, in bytes.
pub const TAG_LEN: usize = 4;
/// The shortest frame on the wire without its check sequence (IEEE 802.3 §4.2.3.3); drivers pad.
pub const FRAME_LEN_MIN: usize = 60;

/// Everybody.
pub const BROADCAST: MacAddr = [0xff; 6];

/// EtherType IPv4.
pub const TYPE_IPV4: u16 = 0x0800;
/// EtherType ARP.
pub const TYPE_ARP: u16 = 0x0806;
/// EtherType of an 802.1Q customer tag.
pub const TYPE_VLAN: u16 = 0x8100;
/// EtherType of an 802.1ad service tag.
pub const TYPE_SERVICE_VLAN: u16 = 0x88a8;
/// EtherType IPv6.
pub const TYPE_IPV6: u16 = 0x86dd;

/// Whether the address names a group (IEEE 802 §8.2: the low bit of the first octet).
#[inline]
#[must_use]
pub const fn is_group(address: MacAddr) -> bool {
    address[0] & 1 != 0
}

/// An Ethernet address in one word: comparing two of them is one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressWord(u64);

impl AddressWord {
    /// Equal to the word of no address.
    pub const NONE: AddressWord = AddressWord(u64::MAX);

    /// The word of an address.
    #[must_use]
    pub const fn new([a, b, c, d, e, f]: MacAddr) -> Self {
        Self::of([a, b, c, d, e, f, 0, 0])
    }

    /// The word of the address that eight bytes begin with; the other two are shifted out.
    #[inline]
    const fn of(bytes: [u8; 8]) -> Self {
        Self(u64::from_le_bytes(bytes) << 16)
    }
}

/// Writes the EtherType of an untagged frame whose addresses stand there already. `None` if it is too
/// short.
#[inline]
#[must_use]
pub(crate) fn put_type(data: &mut [u8], ether_type: u16) -> Option<()> {
    let header: &mut [u8; HEADER_LEN] = data.first_chunk_mut()?;
    super::put(header, 12, ether_type.to_be_bytes());
    Some(())
}

/// The VLAN identifiers of a frame, outermost first. A priority tag (VID 0) names no VLAN and does
/// not count (IEEE 802.1Q §6.9).
///
/// Two of them are equal if they name the same VLANs: the types of received tags do not count.
#[derive(Clone, Copy, Debug, Default)]
pub struct VlanIds {
    /// 0, which names no VLAN, in the places that are not used.
    ids: [u16; 2],
    /// EtherType of the first tag we write; 0 for the usual one.
    outer_type: u16,
}

impl PartialEq for VlanIds {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let Self { ids, outer_type: _ } = self;
        *ids == other.ids
    }
}

impl Eq for VlanIds {}

impl VlanIds {
    /// Untagged.
    pub const NONE: VlanIds = VlanIds {
        ids: [0; 2],
        outer_type: 0,
    };

    /// At most two identifiers, each 1 to 4094.
    #[must_use]
    pub fn new(ids: &[u16]) -> Option<Self> {
        if ids.len() > 2 || ids.iter().any(|id| !(1..=4094).contains(id)) {
            return None;
        }
        let mut this = Self::NONE;
        for &id in ids {
            this.push(id);
        }
        Some(this)
    }

    /// The same, with this type of the first tag where we write it. Without, one tag has
    /// [`TYPE_VLAN`], and the outer of two [`TYPE_SERVICE_VLAN`] (IEEE 802.1ad).
    #[must_use]
    pub const fn with_outer_type(self, outer_type: u16) -> Self {
        Self { outer_type, ..self }
    }

    fn push(&mut self, id: u16) {
        if let Some(place) = self.ids.iter_mut().find(|place| **place == 0) {
            *place = id;
        }
    }

    /// The identifiers, outermost first.
    #[must_use]
    pub fn as_slice(&self) -> &[u16] {
        &self.ids[..self.len()]
    }

    /// How many.
    #[inline]
    const fn len(self) -> usize {
        match self.ids {
            [0, _] => 0,
            [_, 0] => 1,
            _ => 2,
        }
    }

    /// Length of an Ethernet header with these tags, in bytes.
    #[inline]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        HEADER_LEN + self.len() * TAG_LEN
    }
}

/// A frame whose Ethernet header and tags are whole.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    header: &'a [u8; HEADER_LEN],
    vlans: VlanIds,
    ether_type: u16,
    payload_offset: usize,
}

impl<'a> Packet<'a> {
    /// Reads the header and up to two tags.
    ///
    /// # Errors
    /// [`DropReason::EthernetTruncated`] if the frame ends before its payload begins.
    #[inline]
    pub fn new_checked(data: &'a [u8]) -> Result<Self, DropReason> {
        let this = Self::new_untagged(data)?;
        if this.ether_type == TYPE_VLAN || this.ether_type == TYPE_SERVICE_VLAN {
            return Self::tagged(data, this.header, this.ether_type);
        }
        Ok(this)
    }

    /// Reads the header alone: a tag is taken for the payload, and its type for the EtherType.
    ///
    /// # Errors
    /// [`DropReason::EthernetTruncated`].
    #[inline]
    pub fn new_untagged(data: &'a [u8]) -> Result<Self, DropReason> {
        let header: &[u8; HEADER_LEN] = data.first_chunk().ok_or(DropReason::EthernetTruncated)?;
        Ok(Self {
            header,
            vlans: VlanIds::NONE,
            ether_type: be16(header, 12),
            payload_offset: HEADER_LEN,
        })
    }

    #[cold]
    fn tagged(
        data: &'a [u8],
        header: &'a [u8; HEADER_LEN],
        mut ether_type: u16,
    ) -> Result<Self, DropReason> {
        let mut vlans = VlanIds::NONE;
        let mut payload_offset = HEADER_LEN;
        for _ in 0..2 {
            if ether_type != TYPE_VLAN && ether_type != TYPE_SERVICE_VLAN {
                break;
            }
            let tag: &[u8; TAG_LEN] =
                chunk_at(data, payload_offset).ok_or(DropReason::EthernetTruncated)?;
            vlans.push(be16(tag, 0) & 0x0fff);
            ether_type = be16(tag, 2);
            payload_offset += TAG_LEN;
        }
        Ok(Self {
            header,
            vlans,
            ether_type,
            payload_offset,
        })
    }

    /// Who it is for.
    #[inline]
    #[must_use]
    pub const fn destination(&self) -> MacAddr {
        array_at(self.header, 0)
    }

    /// The same in one word.
    #[inline]
    #[must_use]
    pub const fn destination_word(&self) -> AddressWord {
        AddressWord::of(array_at(self.header, 0))
    }

    /// Who sent it.
    #[inline]
    #[must_use]
    pub const fn source(&self) -> MacAddr {
        array_at(self.header, 6)
    }

    /// Its VLANs.
    #[inline]
    #[must_use]
    pub const fn vlans(&self) -> VlanIds {
        self.vlans
    }

    /// The EtherType behind the tags.
    #[inline]
    #[must_use]
    pub const fn ether_type(&self) -> u16 {
        self.ether_type
    }

    /// Whether the EtherType in front of any tags is this one.
    #[inline]
    #[must_use]
    pub const fn has_type(&self, ether_type: u16) -> bool {
        // The constant is turned round, not what was read.
        u16::from_ne_bytes(array_at(self.header, 12)) == ether_type.to_be()
    }

    /// Where the payload starts, in bytes from the start of the frame.
    #[inline]
    #[must_use]
    pub const fn payload_offset(&self) -> usize {
        self.payload_offset
    }
}

/// The meaning of a header that we send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Who it is for.
    pub destination: MacAddr,
    /// Who sends it.
    pub source: MacAddr,
    /// The tags it carries.
    pub vlans: VlanIds,
    /// What follows.
    pub ether_type: u16,
}

impl Repr {
    /// Writes the header to the start of `data` and returns its length in bytes, or `None` if
    /// `data` is too short.
    #[inline]
    #[must_use]
    pub fn emit(&self, data: &mut [u8]) -> Option<usize> {
        if data.len() < self.vlans.header_len() {
            return None;
        }
        let header: &mut [u8; HEADER_LEN] = data.first_chunk_mut()?;
        super::put(header, 0, self.destination);
        super::put(header, 6, self.source);
        super::put(header, 12, self.ether_type.to_be_bytes());
        if self.vlans == VlanIds::NONE {
            return Some(HEADER_LEN);
        }
        self.emit_tags(data)
    }

    #[cold]
    fn emit_tags(&self, data: &mut [u8]) -> Option<usize> {
        let ids = self.vlans.as_slice();
        let len = self.vlans.header_len();
        let tags = data.get_mut(12..len)?;
        for (index, (tag, id)) in tags.chunks_exact_mut(TAG_LEN).zip(ids).enumerate() {
            let tag_type = match (index, ids.len(), self.vlans.outer_type) {
                // The outer of two tags is the service tag (IEEE 802.1ad).
                (0, 2, 0) => TYPE_SERVICE_VLAN,
                (1, ..) | (_, _, 0) => TYPE_VLAN,
                (_, _, outer_type) => outer_type,
            };
            tag[..2].copy_from_slice(&tag_type.to_be_bytes());
            tag[2..].copy_from_slice(&id.to_be_bytes());
        }
        data.get_mut(len - 2..len)?
            .copy_from_slice(&self.ether_type.to_be_bytes());
        Some(len)
    }
}

/// What a header begins with.
#[must_use]
pub(crate) fn addresses(destination: MacAddr, source: MacAddr) -> [u8; 12] {
    let mut addresses = [0; 12];
    super::put(&mut addresses, 0, destination);
    super::put(&mut addresses, 6, source);
    addresses
}

/// Turns a received header round in place: the reply goes to `destination` from `source`, and
/// whatever tags there are stay as they came.
#[inline]
pub(crate) fn turn_round(data: &mut [u8], destination: MacAddr, source: MacAddr) {
    if let Some(header) = data.first_chunk_mut::<HEADER_LEN>() {
        super::put(header, 0, destination);
        super::put(header, 6, source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repr(ids: &[u16]) -> Repr {
        Repr {
            destination: [2, 0, 0, 0, 0, 1],
            source: [2, 0, 0, 0, 0, 2],
            vlans: VlanIds::new(ids).unwrap(),
            ether_type: TYPE_IPV6,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for ids in [&[][..], &[100], &[100, 4094]] {
            let repr = repr(ids);
            let mut data = [0xaa; 40];
            let len = repr.emit(&mut data).unwrap();
            let packet = Packet::new_checked(&data).unwrap();
            assert_eq!(packet.payload_offset(), len);
            assert_eq!(packet.destination(), repr.destination);
            assert_eq!(packet.source(), repr.source);
            assert_eq!(packet.vlans(), repr.vlans);
            assert_eq!(packet.ether_type(), TYPE_IPV6);
            assert!(repr.emit(&mut data[..len - 1]).is_none());
            assert_eq!(
                Packet::new_checked(&data[..len - 1]).unwrap_err(),
                DropReason::EthernetTruncated
            );
        }
    }

    #[test]
    fn the_outer_tag_has_the_type_it_was_given() {
        let types = |vlans: VlanIds| {
            let repr = Repr { vlans, ..repr(&[]) };
            let mut data = [0; 40];
            repr.emit(&mut data).unwrap();
            let packet = Packet::new_checked(&data).unwrap();
            assert_eq!(packet.vlans(), vlans);
            [12, 16].map(|at| u16::from_be_bytes([data[at], data[at + 1]]))
        };
        let (one, two) = (VlanIds::new(&[7]).unwrap(), VlanIds::new(&[7, 9]).unwrap());
        assert_eq!(types(one), [TYPE_VLAN, TYPE_IPV6]);
        assert_eq!(types(two), [TYPE_SERVICE_VLAN, TYPE_VLAN]);
        let service = |vlans: VlanIds| types(vlans.with_outer_type(TYPE_SERVICE_VLAN));
        assert_eq!(service(one), [TYPE_SERVICE_VLAN, TYPE_IPV6]);
        let customer = |vlans: VlanIds| types(vlans.with_outer_type(TYPE_VLAN));
        assert_eq!(customer(two), [TYPE_VLAN, TYPE_VLAN]);
    }

    #[test]
    fn a_priority_tag_is_no_vlan() {
        let mut data = [0; 18];
        data[12..18].copy_from_slice(&[0x81, 0, 0xe0, 0, 0x08, 0]);
        let packet = Packet::new_checked(&data).unwrap();
        assert_eq!(packet.vlans(), VlanIds::NONE);
        assert_eq!(
            (packet.ether_type(), packet.payload_offset()),
            (TYPE_IPV4, 18)
        );
    }

    #[test]
    fn a_third_tag_is_payload_of_unknown_type() {
        let mut data = [0; 30];
        for at in [12, 16, 20] {
            data[at..at + 4].copy_from_slice(&[0x81, 0, 0, 5]);
        }
        let packet = Packet::new_checked(&data).unwrap();
        assert_eq!(packet.ether_type(), TYPE_VLAN);
    }

    #[test]
    fn impossible_identifiers_are_refused() {
        assert!(VlanIds::new(&[0]).is_none());
        assert!(VlanIds::new(&[4095]).is_none());
        assert!(VlanIds::new(&[1, 2, 3]).is_none());
    }
}
