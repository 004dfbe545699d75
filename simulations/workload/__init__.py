"""The workload: clients that push, pull, tag, delete, mount and upload at changing instances, all at once.

client             one client, and what it can do
mix                what clients do, and how often
images             what clients push
malformed_uploads  clients that make mistakes
long_upload        one upload that goes on through a whole run
cold_ranges        clients that pull ranges of content that other instances hold
access_changes     changes of access control, by the operator and by administrators
first_accounts     the accounts with which a run of access control begins
credentials        what clients prove themselves by: keys, passwords, the cluster key
pipeline           clients that push a tag and pull it at once elsewhere, beside faults by which instances lag
final_reads        the end of a run: everything is listed and pulled at every instance
"""
