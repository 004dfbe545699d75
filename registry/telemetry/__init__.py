"""The telemetry of a running instance: counters, logs, request ids.

Nothing here influences behaviour. No secret is logged.

counters     plain numbers, read when metrics are scraped (`registry.http.admin.metrics`)
events       the names of log events, which tools may rely on
event_log    writing a log line with its event and its fields
log_limit    a bound on how many lines one kind of event writes
refusals     refused pushes, counted and logged by reason
request_ids  the id of a request, which follows it through logs and to other instances
"""
