-- `wrk -s wrk.lua URL -- [name=value ...]`, and it ends with a line of JSON.
--   body=FILE           posts what is in the file
--   paths=FILE          asks for each path in the file in turn
--   authorization=TEXT  sends that header

local paths, position = {}, 0

function init(arguments)
  local given = {}
  for _, argument in ipairs(arguments) do
    local name, value = argument:match("^(%w+)=(.*)$")
    given[name] = value
  end
  wrk.headers["Authorization"] = given.authorization
  if given.body then
    wrk.method, wrk.body, wrk.headers["Content-Type"] = "POST", io.open(given.body):read("*a"), "application/json"
  end
  if given.paths then
    for path in io.lines(given.paths) do
      table.insert(paths, wrk.format(nil, path))
    end
    request = function()
      position = position % #paths + 1
      return paths[position]
    end
  else
    local same = wrk.format()
    request = function() return same end
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "refused": %d, "lost": %d, "seconds": %f, "mean_ms": %f, "p50_ms": %f, "p99_ms": %f}\n',
    summary.requests, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    summary.duration / 1e6, latency.mean / 1e3, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
