//! Named counters and the one list of reasons to drop a packet.

/// Makes an enum of counters with names and help texts, and the table that counts them.
macro_rules! counters {
    ($(#[$doc:meta])* $enum:ident, $table:ident { $($(#[$help_doc:meta])* $variant:ident = $name:literal, $help:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $enum { $(#[doc = $help] $variant,)+ }

        impl $enum {
            /// All of them, in order.
            pub const ALL: &'static [$enum] = &[$($enum::$variant,)+];

            /// The name in metrics and reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($enum::$variant => $name,)+ }
            }

            /// One sentence for people.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $($enum::$variant => $help,)+ }
            }
        }

        #[doc = concat!("A count for each [`", stringify!($enum), "`].")]
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $table([u64; $enum::ALL.len()]);

        impl Default for $table {
            fn default() -> Self { Self([0; $enum::ALL.len()]) }
        }

        impl $table {
            /// Adds one.
            #[inline]
            pub fn count(&mut self, which: $enum) { self.add(which, 1); }

            /// Adds `n`.
            #[inline]
            pub fn add(&mut self, which: $enum, n: u64) {
                self.0[which as usize] = self.0[which as usize].wrapping_add(n);
            }

            /// How often it happened.
            #[inline]
            #[must_use]
            pub fn get(&self, which: $enum) -> u64 { self.0[which as usize] }

            /// All of them, with their counts, zeros included.
            pub fn iter(&self) -> impl Iterator<Item = ($enum, u64)> + '_ {
                $enum::ALL.iter().map(|&which| (which, self.get(which)))
            }

            /// Adds another table to this one.
            pub fn merge(&mut self, other: &Self) {
                for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
                    *mine = mine.wrapping_add(*theirs);
                }
            }
        }
    };
}

counters! {
    /// Why a packet was dropped. Every drop has exactly one of these.
    DropReason, DropCounters {
        EthernetTruncated = "ethernet_truncated", "Shorter than its Ethernet or 802.1Q header.";
        EthernetNotForUs = "ethernet_not_for_us", "A unicast frame for another Ethernet address.";
        EthernetSourceInvalid = "ethernet_source_invalid", "The Ethernet source is a group, nobody or ourselves.";
        VlanMismatch = "vlan_mismatch", "802.1Q tags other than the configured ones.";
        EtherTypeUnknown = "ethertype_unknown", "Neither IPv4, IPv6 nor ARP.";
        ArpMalformed = "arp_malformed", "An ARP packet that is truncated or not IPv4 over Ethernet.";
        ArpNotForUs = "arp_not_for_us", "An ARP packet about an address the stack does not own.";
        Ipv4Truncated = "ipv4_truncated", "Shorter than an IPv4 header.";
        Ipv4Version = "ipv4_version", "EtherType IPv4, but the version field says otherwise.";
        Ipv4HeaderLength = "ipv4_header_length", "An IPv4 header length below 20 bytes or beyond the packet.";
        Ipv4TotalLength = "ipv4_total_length", "An IPv4 total length below the header's or beyond the frame.";
        Ipv4Checksum = "ipv4_checksum", "A wrong IPv4 header checksum.";
        Ipv4Options = "ipv4_options", "An IPv4 option whose length is impossible.";
        Ipv4SourceRoute = "ipv4_source_route", "An IPv4 source route: refused, as Linux refuses it by default.";
        Ipv4SourceInvalid = "ipv4_source_invalid", "An IPv4 source that no host may use: multicast, broadcast, loopback, zero.";
        Ipv6Truncated = "ipv6_truncated", "Shorter than an IPv6 header.";
        Ipv6Version = "ipv6_version", "EtherType IPv6, but the version field says otherwise.";
        Ipv6PayloadLength = "ipv6_payload_length", "An IPv6 payload length beyond the frame.";
        Ipv6ExtensionHeader = "ipv6_extension_header", "IPv6 extension headers that are truncated, misplaced or too many.";
        Ipv6Option = "ipv6_option", "An unknown IPv6 option that asks to be discarded.";
        Ipv6RoutingHeader = "ipv6_routing_header", "An IPv6 routing header with segments left.";
        Ipv6SourceInvalid = "ipv6_source_invalid", "An IPv6 source that no host may use: multicast, unspecified, loopback, mapped.";
        IpInGroupFrame = "ip_in_group_frame", "A packet for an address of ours alone in a frame for everybody: not to be answered (RFC 1122 section 3.3.6). A switch or a broken host made it so.";
        IpNotLocal = "ip_not_local", "The destination address is not ours.";
        IpProtocolUnknown = "ip_protocol_unknown", "A protocol nobody here speaks.";
        FragmentMalformed = "fragment_malformed", "A fragment with an impossible offset or length.";
        FragmentDuplicate = "fragment_duplicate", "A fragment that had arrived before.";
        FragmentOverlap = "fragment_overlap", "Fragments that overlap: the whole datagram is refused (RFC 5722).";
        FragmentEcn = "fragment_ecn", "Fragments of one datagram that disagree whether their sender knows of ECN: it is refused (RFC 3168).";
        FragmentLimit = "fragment_limit", "A fragment or datagram given up because reassembly memory is full.";
        FragmentTimeout = "fragment_timeout", "A datagram whose missing fragments never came.";
        ReassemblyDisabled = "reassembly_disabled", "A fragment, while reassembly is switched off.";
        IcmpTruncated = "icmp_truncated", "Shorter than an ICMP header.";
        IcmpChecksum = "icmp_checksum", "A wrong ICMP checksum.";
        IcmpTypeUnknown = "icmp_type_unknown", "An ICMP type that a host ignores.";
        IcmpNotForUs = "icmp_not_for_us", "An ICMP message the kernel answers, or an error about a flow that is not ours.";
        IcmpEmbedded = "icmp_embedded", "An ICMP error whose embedded packet cannot be read.";
        IcmpRateLimited = "icmp_rate_limited", "An ICMP message of ours not sent because of the rate limit.";
        NdpMalformed = "ndp_malformed", "A neighbour discovery message that RFC 4861 tells to discard.";
        UdpTruncated = "udp_truncated", "Shorter than a UDP header.";
        UdpLength = "udp_length", "A UDP length below 8 or beyond the packet.";
        UdpChecksum = "udp_checksum", "A wrong UDP checksum.";
        UdpChecksumIncomplete = "udp_checksum_incomplete", "A checksum that covers only the pseudo-header: the sender left the rest to its NIC, but the packet never crossed one (veth). Turn it off at the sender (ethtool -K DEV tx off) or set checksums.accept_incomplete.";
        UdpChecksumMissing = "udp_checksum_missing", "UDP over IPv6 without a checksum.";
        UdpNoSocket = "udp_no_socket", "No socket on this address and port.";
        UdpQueueFull = "udp_queue_full", "The socket's receive queue is full: the application is too slow.";
        UdpPortZero = "udp_port_zero", "A datagram sent to port 0, or a reply to a sender without a port (RFC 768).";
        UdpSocketClosed = "udp_socket_closed", "It waited in a socket that was closed, or for a worker that ended.";
        UdpNoReply = "udp_no_reply", "An echo that would answer an echo for ever: the source is such a service itself.";
        TcpTruncated = "tcp_truncated", "Shorter than a TCP header.";
        TcpDataOffset = "tcp_data_offset", "A TCP data offset below 20 bytes or beyond the packet.";
        TcpChecksum = "tcp_checksum", "A wrong TCP checksum.";
        TcpChecksumIncomplete = "tcp_checksum_incomplete", "A checksum that covers only the pseudo-header: the sender left the rest to its NIC, but the packet never crossed one (veth). Turn it off at the sender (ethtool -K DEV tx off) or set checksums.accept_incomplete.";
        TcpNoSocket = "tcp_no_socket", "A segment for no connection and no listener of ours.";
        TcpClosed = "tcp_closed", "A segment for a connection that has ended, and whose application has not let go of it.";
        TcpTimestampMissing = "tcp_timestamp_missing", "A segment without the timestamps that were agreed upon (RFC 7323 section 3.2).";
        TcpOldDuplicate = "tcp_old_duplicate", "A segment whose timestamp is older than the last (PAWS, RFC 7323 section 5).";
        TcpResetOutOfWindow = "tcp_reset_out_of_window", "A RST that cannot be the peer's.";
        TcpResetChallenged = "tcp_reset_challenged", "A RST in the window but not at its edge: answered by a challenge ACK (RFC 5961 section 3.2).";
        TcpSynChallenged = "tcp_syn_challenged", "A SYN for a connection that is there: answered by a challenge ACK (RFC 5961 section 4.2).";
        TcpNoAck = "tcp_no_ack", "A segment without ACK where there has to be one.";
        TcpNoSyn = "tcp_no_syn", "Neither SYN nor RST in answer to a SYN.";
        TcpAckUnacceptable = "tcp_ack_unacceptable", "An acknowledgement, during the handshake, of something else: answered by RST.";
        TcpAckUnsent = "tcp_ack_unsent", "An acknowledgement of what was never sent.";
        TcpAckOld = "tcp_ack_old", "An acknowledgement older than anything under way (RFC 5961 section 5.2).";
        TcpDuplicate = "tcp_duplicate", "Nothing but what had come before.";
        TcpOutOfWindow = "tcp_out_of_window", "Nothing within the window.";
        TcpTextAfterFin = "tcp_text_after_fin", "Data behind the peer's own FIN.";
        TcpNoMemory = "tcp_no_memory", "No memory for received data: raise limits.tcp_receive_memory.";
        TcpTooManyRanges = "tcp_too_many_ranges", "Data out of order, in too many pieces.";
        TcpTimeWait = "tcp_time_wait", "A segment for a connection in TIME-WAIT.";
        TcpBacklogFull = "tcp_backlog_full", "A listener's backlog is full: the application does not accept, or raise backlog.";
        TcpCookieOvertaken = "tcp_cookie_overtaken", "A segment that came before the one with the SYN cookie it belongs to, perhaps: it will be sent again.";
        TcpConnectionsFull = "tcp_connections_full", "As many connections as limits.tcp_connections allows.";
        TcpPortZero = "tcp_port_zero", "A segment from or to port 0, which nobody can have.";
        TxNoRoute = "tx_no_route", "No route to the destination through our interface.";
        TxNoSource = "tx_no_source", "The address to send from is not ours, or no longer.";
        TxNeighborUnresolved = "tx_neighbor_unresolved", "The next hop's Ethernet address is not known yet, and another packet already waits for it.";
        TxNeighborTableFull = "tx_neighbor_table_full", "The next hop's Ethernet address is not known, and the table is full of neighbours that the kernel knows: raise limits.neighbors.";
        TxNeighborFailed = "tx_neighbor_failed", "The next hop does not answer ARP or neighbour solicitations.";
        TxNoFrame = "tx_no_frame", "No free frame to send with: raise rings.frames.";
        TxQueueFull = "tx_queue_full", "The egress queue is full: the NIC does not keep up.";
        TxTooLong = "tx_too_long", "Longer than an IP packet may be, or than the path carries when fragments are not allowed.";
        HandoffFull = "handoff_full", "The queue to the worker that serves this flow is full.";
        FrameTooLong = "frame_too_long", "A packet too long for the buffer it was to move to.";
    }
}

counters! {
    /// What happened, apart from drops.
    Event, EventCounters {
        FrameRx = "frame_rx", "Frames given to the stack.";
        FrameTx = "frame_tx", "Frames the stack gave to the driver.";
        FrameRxBytes = "frame_rx_bytes", "Bytes of the frames given to the stack.";
        FrameTxBytes = "frame_tx_bytes", "Bytes of the frames the stack gave to the driver.";
        UdpRx = "udp_rx", "Datagrams put into a socket's queue.";
        UdpTx = "udp_tx", "Datagrams sent, or waiting for their next hop.";
        UdpRxBytes = "udp_rx_bytes", "Payload bytes of the datagrams put into a socket's queue.";
        UdpTxBytes = "udp_tx_bytes", "Payload bytes of the datagrams sent.";
        ChecksumIncompleteAccepted = "checksum_incomplete_accepted", "Incomplete checksums accepted because the configuration says so.";
        FragmentRx = "fragment_rx", "Fragments received.";
        DatagramReassembled = "datagram_reassembled", "Datagrams put together from fragments.";
        FragmentTx = "fragment_tx", "Fragments sent.";
        IcmpEchoReplied = "icmp_echo_replied", "Echo requests answered.";
        IcmpErrorTx = "icmp_error_tx", "ICMP errors sent.";
        IcmpErrorRx = "icmp_error_rx", "ICMP errors received about flows of ours.";
        PathMtuLearned = "path_mtu_learned", "Path MTUs lowered by an ICMP message.";
        PathMtuRefused = "path_mtu_refused", "ICMP messages about path MTUs that make no sense, or claim less than IPv6 guarantees.";
        PathMtuBlackHole = "path_mtu_black_hole", "Paths on which long TCP segments vanished without a word: shorter ones are sent (RFC 8899).";
        ArpRx = "arp_rx", "ARP packets about addresses of ours.";
        ArpReplied = "arp_replied", "ARP requests answered.";
        NdpReplied = "ndp_replied", "Neighbour solicitations answered.";
        NeighborSolicited = "neighbor_solicited", "ARP requests and neighbour solicitations sent.";
        NeighborAsked = "neighbor_asked", "Times the kernel was asked to find a neighbour.";
        NeighborFromPacket = "neighbor_from_packet", "Replies sent to the Ethernet source of the request, the neighbour being unknown yet.";
        AddressAnnounced = "address_announced", "Announcements of addresses the stack owns.";
        AddressConflict = "address_conflict", "Packets that showed another host using an address the stack owns.";
        TcpSegmentRx = "tcp_segment_rx", "Segments taken by a connection.";
        TcpSegmentTx = "tcp_segment_tx", "Segments with data or FIN sent.";
        TcpAckTx = "tcp_ack_tx", "Acknowledgements without data sent.";
        TcpRxBytes = "tcp_rx_bytes", "Bytes of data in segments taken.";
        TcpTxBytes = "tcp_tx_bytes", "Bytes of data in segments sent, those sent again included.";
        TcpSynRx = "tcp_syn_rx", "SYNs that began a half-open connection.";
        TcpSynTx = "tcp_syn_tx", "SYNs of connections that we open.";
        TcpSynRetransmitted = "tcp_syn_retransmitted", "SYNs and SYN,ACKs sent again.";
        TcpSynCookieTx = "tcp_syn_cookie_tx", "SYNs answered by a cookie.";
        TcpSynCookieRx = "tcp_syn_cookie_rx", "Cookies that came back.";
        TcpHalfOpenTimeout = "tcp_half_open_timeout", "Half-open connections given up.";
        TcpEstablished = "tcp_established", "Connections established.";
        TcpConnectFailed = "tcp_connect_failed", "Connections of services (connect) that could not be opened: refused, no answer, no route, no address or no port. They are tried again.";
        TcpRetransmitted = "tcp_retransmitted", "Segments sent again.";
        TcpRto = "tcp_rto", "Retransmission timeouts.";
        TcpTailLossProbe = "tcp_tail_loss_probe", "Tail loss probes (RFC 8985).";
        TcpOutOfOrderRx = "tcp_out_of_order_rx", "Segments that came out of order.";
        TcpWindowProbeTx = "tcp_window_probe_tx", "Probes of closed windows.";
        TcpKeepaliveTx = "tcp_keepalive_tx", "Keep-alive probes.";
        TcpChallengeAckTx = "tcp_challenge_ack_tx", "Challenge ACKs (RFC 5961).";
        TcpResetRx = "tcp_reset_rx", "Connections reset by their peer.";
        TcpResetTx = "tcp_reset_tx", "RSTs sent.";
        TcpTimeWaitReused = "tcp_time_wait_reused", "Connections opened in place of one in TIME-WAIT (RFC 6191).";
        TcpTimeWaitOverflow = "tcp_time_wait_overflow", "Records in TIME-WAIT that went before their time.";
        TcpAnswerDropped = "tcp_answer_dropped", "Answers not sent because too many were waiting.";
        HandoffTx = "handoff_tx", "Packets handed to the worker that serves their flow.";
        HandoffRx = "handoff_rx", "Packets taken over from another worker.";
    }
}
