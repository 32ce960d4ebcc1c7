/* SPDX-License-Identifier: MIT
 *
 * Internet checksum (RFC 1071) and the digest that sinks and traces compare. Both extensions compile checksum.c.
 */
/* Ones-complement sum of n bytes and `initial`, folded to 16 bits, not complemented, in host order: a 16-bit field stored with
 * memcpy from ~sum makes the region sum to 0xffff. An odd last byte counts as if followed by zero (RFC 1071). */
uint16_t exo_checksum(const uint8_t *bytes, uint32_t n, uint32_t initial);
/* The same of the pseudo header of TCP and UDP (RFC 9293 3.1, RFC 768, RFC 8200 8.1): n bytes of addresses, as they stand in the IP
 * header, the protocol, and the length of the packet from its header on. */
uint16_t exo_pseudo_sum(const uint8_t *addresses, uint32_t n, uint32_t protocol, uint32_t length);
/* Copies n bytes and returns exo_checksum of the bytes from offset `skip` on, in one pass. */
uint16_t exo_copy_checksum(uint8_t *to, const uint8_t *from, uint32_t n, uint32_t skip);
/* A 64-bit digest of n bytes; the digest of a set of frames is the wrapping sum of theirs, so order does not matter. */
uint64_t exo_digest(const uint8_t *bytes, uint32_t n);
