-- The load that wrk puts on a tracking server: one kind of request, named by the first argument, over the runs in the second
-- (a file with one run id a line; for searches, the experiment id). Statuses other than 200 are counted and reported.
local kind, runs, count, step, body_tail = nil, {}, 0, 0, nil

function init(args)
  kind = args[1]
  for line in io.lines(args[2]) do runs[#runs + 1] = line end
  if kind == "log-batch" then
    local metrics = {}
    for n = 1, 100 do
      metrics[n] = string.format('{"key":"metric_%d","value":%d.5,"timestamp":1700000000000,"step":STEP}', n, n)
    end
    body_tail = '","metrics":[' .. table.concat(metrics, ",") .. "]}"
  end
end

local json = { ["Content-Type"] = "application/json" }

function request()
  count = count + 1
  local run = runs[count % #runs + 1]
  if kind == "log-metric" then
    return wrk.format("POST", "/api/2.0/mlflow/runs/log-metric", json, string.format(
      '{"run_uuid":"%s","run_id":"%s","key":"loss","value":0.%d,"timestamp":%d,"step":%d}', run, run, count, 1700000000000 + count, count))
  elseif kind == "log-batch" then
    return wrk.format("POST", "/api/2.0/mlflow/runs/log-batch", json, '{"run_id":"' .. run .. body_tail:gsub("STEP", tostring(count)))
  elseif kind == "runs-get" then
    return wrk.format("GET", "/api/2.0/mlflow/runs/get?run_uuid=" .. run .. "&run_id=" .. run)
  elseif kind == "health" then
    return wrk.format("GET", "/health")
  else -- search-N: a page of N runs with a metric filter, ordered by another metric
    return wrk.format("POST", "/api/2.0/mlflow/runs/search", json, string.format(
      '{"experiment_ids":["%s"],"filter":"metrics.acc > 0.25","order_by":["metrics.loss ASC"],"max_results":%s}', run, kind:match("%d+")))
  end
end

local threads = {}
function setup(thread) threads[#threads + 1] = thread end

bad = 0
function response(status) if status ~= 200 then bad = bad + 1 end end

function done(summary, latency)
  local failed = 0
  for _, thread in ipairs(threads) do failed = failed + thread:get("bad") end
  io.write(string.format('RESULT {"requests": %d, "seconds": %.3f, "bad": %d, "socket_errors": %d, "p50_ms": %.3f, "p99_ms": %.3f}\n',
    summary.requests, summary.duration / 1e6, failed,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
