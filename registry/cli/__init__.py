"""The command line.

main        the command; serve and demo
look        commands that look at running instances
upkeep      commands that have them do something
accounts    commands about accounts, keys and groups
access      commands about rights
login       commands about the login that commands sign in with
confirmations waiting until the other instances have a change of access control
audit       commands about the audit log
access_offline the first administrator of a data directory, and recovery
directory   commands that work on data directories
commands    what all commands share
serve       running an instance: sockets, lock, signals
start_errors reasons not to start, in the format of the log
logs        what an instance says, as text or JSON
demo        three instances and a Redis on this machine
demo_access TLS and access control for these
status      how an instance stands, once or followed
status_text what a status says of names, room, policy and clocks
replication where a tag is
client      asking a running instance
signing     administrative requests signed with the cluster key
compare     what two running instances hold differently
scrub       having a running instance check its content
catalog_file opening a data directory's catalog to read it
verify      re-hashing a data directory's content
target      reading and writing in an untrusted directory
backup      backups of a data directory, and starting again from one
rebuild     a new catalog where it is lost
bundle      repositories as files, for a site without a network: what there is in one
bundle_export  making one
bundle_import  taking one in
undo        what an older copy holds and was deleted since
bundle_staging  a verified copy of a bundle, each file of which is read once
"""
