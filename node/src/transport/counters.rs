//! Counters of what peers did wrong and what was dropped, for `/metrics`.

/// Defines a struct of atomic counters with a way to add one and a named snapshot.
macro_rules! counters {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: std::sync::atomic::AtomicU64,)+
        }

        impl $name {
            /// Every counter with its name, in a fixed order.
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field.load(std::sync::atomic::Ordering::Relaxed)),)+]
            }

            /// Every counter under its whole name in the metrics, in the same order.
            pub fn metrics(&self) -> Vec<(&'static str, u64)> {
                vec![$((
                    concat!("hearth_", stringify!($field), "_total"),
                    self.$field.load(std::sync::atomic::Ordering::Relaxed),
                ),)+]
            }

            /// One counter by its name, zero for a name that does not exist.
            pub fn get(&self, name: &str) -> u64 {
                self.snapshot().into_iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| count)
            }
        }
    };
}
pub(crate) use counters;

/// Adds one.
pub(crate) fn bump(counter: &std::sync::atomic::AtomicU64) {
    counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

counters! {
    /// What happened on the ports of this node, over QUIC and over TCP, since it started.
    TransportCounters {
        /// Links that came up, dialled or accepted.
        link_up,
        /// Links that went down.
        link_down,
        /// UDP packets that are not QUIC.
        udp_not_quic,
        /// QUIC clients asked to prove their address because many handshakes were unfinished.
        address_validation,
        /// Handshakes that were not finished within their deadline.
        handshake_timeout,
        /// Unfinished handshakes dropped, the oldest of the address with most, because too many were open.
        handshake_evicted,
        /// Handshakes that broke a rule of QUIC, of TLS, or of our keys.
        handshake_failed,
        /// Handshakes that the other side gave up, as the losers of a race do.
        handshake_abandoned,
        /// Clients that speak none of our protocols.
        unknown_alpn,
        /// Connections asking for admission while too many of them were open.
        join_busy,
        /// Connections asking for admission that had sent no request and gave way to another.
        join_evicted,
        /// Connections of keys not yet admitted while too many of them were open.
        stranger_busy,
        /// Links closed because their key was not admitted in time.
        stranger_timeout,
        /// Frames larger than allowed; each closed its link.
        oversized_frame,
        /// Datagrams not sent: too large, or too many waiting.
        datagram_dropped,
        /// Datagrams received that are larger than allowed.
        oversized_datagram,
        /// Dialled addresses that answered with another key than the expected one.
        wrong_key,
        /// TCP connections that could not be accepted, for lack of file descriptors mostly.
        tcp_accept_failed,
        /// TCP connections that did not finish their handshake within its deadline.
        tcp_handshake_timeout,
        /// Unfinished TCP handshakes dropped, the oldest of the address with most, because too many were open.
        tcp_handshake_evicted,
        /// TCP connections without a token that gave way, because too many came from their address.
        tcp_crowded,
        /// TCP handshakes that broke a rule of TLS or were cut off.
        tcp_handshake_failed,
        /// Plain HTTP on the TLS port.
        tcp_plain_http,
        /// Bytes on the TLS port that are neither TLS nor HTTP.
        tcp_not_tls,
        /// TLS clients that speak none of our protocols over TCP.
        tcp_unknown_alpn,
        /// Certificates of challenges given out to a certificate authority.
        tcp_acme_answered,
        /// Clients that wanted the certificate of a challenge that nobody here knows.
        tcp_acme_unknown,
        /// Clients that asked for a mesh protocol over TCP and did not get through its TLS: no raw
        /// public key, mostly.
        tcp_mesh_refused,
        /// Mesh connections over TCP that asked for no WebSocket, or not for the mesh's.
        websocket_refused,
        /// Links over WebSockets that broke a rule of the protocol or carried something else.
        websocket_misuse,
        /// Links over which nothing was heard although the peer was asked.
        link_silent,
        /// Finished TCP connections dropped because the API took no more.
        tcp_busy,
    }
}
