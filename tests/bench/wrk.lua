-- `wrk -s wrk.lua URL -- BODY`: posts BODY if there is one, and ends with a line for a program.

function init(arguments)
  if arguments[1] then
    wrk.method, wrk.body, wrk.headers["Content-Type"] = "POST", arguments[1], "application/json"
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('{"requests": %d, "refused": %d, "lost": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f}\n',
    summary.requests, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
