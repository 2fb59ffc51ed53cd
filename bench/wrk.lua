-- wrk -s wrk.lua URL -- BYTES: GET, or POST with a body of so many bytes; one line of JSON at the end.

init = function(arguments)
  local bytes = tonumber(arguments[1] or "0")
  if bytes > 0 then
    wrk.method = "POST"
    wrk.body = string.rep("x", bytes)
  end
  whole = wrk.format()
end

request = function()
  return whole
end

done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "status": %d, "broken": %d, "timeout": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write, errors.timeout))
end
