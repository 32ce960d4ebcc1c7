# SPDX-License-Identifier: MIT
"""Odd Ethernet expressions that libpcap compiles, one a line: what an auditor of this project wrote down to find those that
do not bind, without looking at what does. Kept whole, also the ones that are refused.
"""

# ruff: noqa: E501 - an expression a line
ODD = r"""
ether[0] & 1 != 0
ip[8] < 5
tcp[tcpflags] & (tcp-syn|tcp-fin) != 0
less 128
greater 1000
vlan 5 and pppoes 3 and ip
mpls 100000 && mpls 1024 && ip
mpls 100000 && host 10.0.0.1
ip6 protochain 6
ip protochain 51
ether proto \arp
iso
llc
stp
geneve
geneve 5 and udp port 53
geneve and ip
geneve and host 10.0.0.1
geneve 0x123456 and vlan 5
geneve and tcp port 80
ip[2:2] - ((ip[0]&0xf)<<2) > 100
tcp[12] >> 4 > 5
tcp[12] & 0xf0 > 0x50
((tcp[12] & 0xf0) >> 2) > 20
tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420
tcp port 80 and tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420
tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420 or tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x504f5354
tcp[((tcp[12] & 0xf0) >> 2)+5:1] = 1
tcp[((tcp[12:1] & 0xf0) >> 2):1] = 0x16 and tcp[((tcp[12:1] & 0xf0) >> 2)+5:1] = 0x01
(tcp[((tcp[12:1] & 0xf0) >> 2):1] = 0x16) && (tcp[((tcp[12:1] & 0xf0) >> 2)+1:1] = 0x03) && (tcp[((tcp[12:1] & 0xf0) >> 2)+9:1] = 0x03)
tcp port 80 and (((ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2)) != 0)
ip[2:2] - ((ip[0]&0xf)<<2) - ((tcp[12]&0xf0)>>2) = 0
(ip[2:2] - ((ip[0]&0xf)<<2) - (tcp[12]>>2)) > 0
udp[4:2] - 8 > 100
udp[8:4] = 0xdeadbeef
udp[10:2] & 0x8000 = 0
udp port 53 and udp[10] & 0x78 = 0
udp port 53 and udp[12:2] = 1
ip[6:2] & 0x2000 != 0
((ip[6:2] > 0) and (not ip[6] = 64))
ip[6] & 0x40 != 0
(ip[6:2] & 0x3fff) != 0
ip[0] & 0x0f > 5
ip[0] > 0x45
(ip[0] >> 4) != 4
ip[1] & 0xfc >> 2 = 46
ip[8] = 1 or ip6[7] = 1
ip[12:4] = ip[16:4]
ether[0:4] = ether[6:4]
tcp[0:2] = tcp[2:2]
udp[0:2] > 1024 and udp[2:2] > 1024
tcp[2:2] % 2 = 0
tcp[2:2] & 1 = 0
ip[15] % 10 = 0
ip[8] % 64 = 0
ip[2:2] * 8 > 8000
len - 14 > 1000
len = 60
len > ip[2:2] + 14
len & 1 = 1
len % 4 = 0
len / 64 = 1
len != 1514
icmp[icmptype] == icmp-timxceed
icmp[icmptype] == icmp-unreach and icmp[icmpcode] == 4
icmp and icmp[0] & 0xf7 = 0
icmp6[icmp6type] == icmp6-routeradvert
icmp6 and (icmp6[0] >= 133 and icmp6[0] <= 137)
icmp[4:2] = 1234
ip6[6] = 44
ip6[6] = 0 and ip6[40] = 58
ip6[4:2] > 1000
ip6[0:4] & 0xfffff = 0
ip6 and ip6[7] = 255
ip6[8:4] = 0x20010db8
ip6[24] = 0xff
ip6 host ff02::1
ip6 net fe80::/10
ip6 src net 2001:db8::/33
dst net 2000::/3 and not dst net 2001:db8::/32
net 0.0.0.0/0
net ::/0
host 0.0.0.0
ip src net 10.0.0.0/7
src net 10.0.0.0/8 and dst net 10.0.0.0/8
not (src net 10 and dst net 10)
not net 10 and not net 172.16.0.0/12 and not net 192.168.0.0/16
src host 10.0.0.1 and (dst port 80 or dst port 443 or dst portrange 8000-8100)
host 10.0.0.1 and host 10.0.0.2
host 10.0.0.1 or host 10.0.0.2 or host 10.0.0.3
tcp portrange 1-1023 and not port 22
not portrange 1024-65535
src portrange 1024-65535 and dst portrange 1-1023
tcp src portrange 1024-65535 and tcp dst portrange 1-1023
udp portrange 33434-33534
(portrange 100-200 or portrange 300-400) and tcp
port 80 or portrange 90-100
port 53 or port 5353 or port 853
tcp dst port 80 and tcp[tcpflags] = tcp-syn
tcp[tcpflags] & (tcp-syn|tcp-ack) = (tcp-syn|tcp-ack)
tcp[tcpflags] == (tcp-syn|tcp-ack)
tcp[tcpflags] & (tcp-push|tcp-urg) != 0 and tcp port 22
tcp[tcpflags] & tcp-rst != 0 or icmp
tcp[4:4] = 0
tcp[4:4] > 0x80000000
tcp[8:4] - 1 > 5
tcp[14:2] < 1024
tcp[14:2] = 0 and tcp[tcpflags] & tcp-rst = 0
tcp[20:2] = 0x0204
tcp[13] & 7 != 0
tcp[13] = 18
tcp[13] & 0x3f = 0
tcp[13] = 0xff
sctp port 3868
sctp dst portrange 1-100
sctp[12] = 1
proto 132
ip proto 47
ip proto 50 or ip proto 51
ip6 proto 89
proto \sctp
ip proto \igmp
igmp[0] = 0x16
pim
vrrp
carp
ah
esp
ip multicast and not igmp
ip6 multicast and not icmp6
ether multicast and not ether broadcast
broadcast or multicast
not broadcast and not multicast
ether host 00:11:22:33:44:55
ether src 00:11:22:33:44:55 and ether dst 66:77:88:99:aa:bb
ether[6:4] = 0x00112233 and ether[10:2] = 0x4455
ether[12:2] = 0x88e5
ether[12:2] <= 1500
ether proto 0x8899
ether proto 0x88f7
ether proto 0x42
ether proto 0x600
ether proto 1500
ether proto \ip6
ether proto 0x8100
atalk
aarp
ipx
netbeui
decnet
decnet src 1.5
lat
moprc
mopdl
sca
rarp
arp
arp[6:2] = 2
arp[7] = 1
arp and arp[14:4] = 0x0a000001
arp src host 10.0.0.1
arp dst net 10.0.0.0/24
arp or rarp
llc u
llc i
llc s
llc xid
llc test and ether multicast
iso proto \isis
iso proto 0x81
clnp
esis
isis
l1
l2
iih
lsp
psnp
csnp
isis proto 20
vlan
vlan 100
vlan 100 or vlan 200
vlan 100 or host 10.0.0.1
vlan 4095
not vlan and ip
vlan and not ip
vlan and ip and tcp port 80
vlan 5 and vlan 6 and tcp port 80
vlan and vlan and vlan
vlan and vlan and vlan and ip
vlan 10 and host 10.0.0.1 and port 53
vlan 10 and ip6 host 2001:db8::1
vlan and arp
vlan and icmp6
(vlan 10 and tcp) or (vlan 20 and udp)
ether[14:2] & 0xe000 = 0xa000
ether[14:2] & 0x0fff < 100
vlan and ether[14] & 0xe0 = 0xe0
pppoed
pppoes
pppoes and ip
pppoes 5 and ip and udp
pppoes and ip6
pppoes and ip6 and tcp port 80
pppoes and host 10.0.0.1
vlan 7 and pppoes 3 and tcp port 443
vlan and vlan and pppoes and ip and udp port 53
mpls
mpls 16
mpls and ip
mpls and ip6
mpls and tcp port 179
mpls 5 and mpls 6 and mpls 7
mpls 5 and mpls 6 and mpls 7 and udp port 53
vlan 5 and mpls 7 and ip
vlan and mpls 16 and tcp dst port 80
ip and not tcp and not udp and not icmp
not ip and not ip6 and not arp
tcp and not port 22 and not port 80 and not port 443
tcp or udp or icmp or icmp6
not (tcp port 80 and host 10.0.0.1)
ip and ((tcp and dst port 80) or (udp and dst port 53))
(tcp[13] & 2 != 0) and (tcp[14:2] = 8192)
udp and (src port 67 and dst port 68 or src port 68 and dst port 67)
udp port 67 and udp[242:4] = 0x63825363
ip and ip[9] = 6 and ip[0] & 0xf = 5 and ip[22:2] = 80
ip[20 + 2:2] = 80
ip[(ip[0] & 0xf) * 4:2] = 80
ip[((ip[0] & 0xf) << 2) + 2:2] = 53
ip[ip[0] & 0xf] = 1
ether[ether[14] & 0xf] = 1
ether[14 + ((ether[14] & 0xf) << 2):2] = 53
udp[8 + 12 + udp[20]] = 0
ip[-1] = 1
ether[1500] = 0
ether[65535] = 0
ip[2:2] > 1500 and ip[6:2] & 0x4000 != 0
ip[4:2] = 0
ip[4:2] > 100 and ip[4:2] < 200
ip[4:2] & 0xff00 = ip[4:2]
ip[8] = 1 and ip[9] != 2
ip[8] - 1 = 0
ip[8] + 300 = 301
ip[8] ^ 255 = 0
ip[8] | 1 = 65
ip[8] & 0xf << 1 = 2
-ip[8] = 5
1 = 1
5 < ip[8]
0x40 = ip[8]
tcp-syn = 2
ip[12:4] & 0xffffff00 = 0x0a000000
ip[12:4] > 0x0a000000 and ip[12:4] < 0x0a0000ff
ip[19] = 0xff
ip[16] = 224
ip src 1.2.3.4
src 1.2.3.4 and dst 5.6.7.8
src or dst host 1.2.3.4
src and dst host 1.2.3.4
ip host 10.0.0.1 and ip host 10.0.0.2 and tcp port 80 and tcp port 1024
src port 80 and dst port 80
src or dst port 80
src and dst port 80
tcp src or dst port 80
inbound
outbound
ifindex 1
dst port 80 and greater 500
less 64 and tcp
port 443 and len > 1000
tcp port 80 and ip[2:2] > 40 and ip[2:2] < 1500
icmp[8:4] = 0
icmp and ip[2:2] > 1000
icmp and icmp[0] = 8 and len = 98
ether proto \ip and not host 10.0.0.1
link[12:2] = 0x800
ether[13] = 8
wlan host 00:11:22:33:44:55
host localhost
port ssh
port http or port https
tcp port domain
udp port bootps or udp port bootpc
ip6[53] & 2 != 0
ip6 and ip6[6] = 6 and ip6[42:2] = 80
ip6 and udp portrange 1000-2000
tcp portrange 1000-2000 and net 10.0.0.0/8
net 10.0.0.0/8 and portrange 1000-2000 and greater 100
ip net 10.1.0.0/16 and not (tcp port 22 or udp portrange 5000-6000)
(ip[6:2] & 0x1fff) = 0 and udp
ip6 proto 44
ip6[6] = 44 and ip6[40] = 17
ip6[6] = 44 and ip6[42:2] & 0xfff8 = 0
10 - ip[1] = 5
100/ip[2] = 4
1 << ip[1] = 4
100 % ip[1] = 1
64 >> (ip[0] & 7) = 2
100 - (ip[0] & 15) = 95
ip[1] = 5 and ip[1]/ip[2] = 1
""".strip().splitlines()
