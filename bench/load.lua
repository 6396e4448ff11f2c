-- Sends what a plan says (run.py writes it): its cycle of actions over and over, each action walking its own users.

local plan, sent, walked

function init(args)
   plan, sent, walked = dofile(args[1]), 0, {}
end

function request()
   local name = plan.cycle[sent % #plan.cycle + 1]
   local action, n = plan.actions[name], walked[name] or 0
   sent, walked[name] = sent + 1, n + 1
   local user = action.first + n * plan.stride % action.users
   local forms = action.passes[math.floor(n / action.users) % #action.passes + 1]
   local form = forms[user % #forms + 1]
   local ids = {}
   for i = 1, action.together do
      ids[i] = string.format("%.0f", plan.base + action.first + (n + i - 1) * plan.stride % action.users)
   end
   return form[1] .. table.concat(ids, plan.between) .. form[2]
end

function done(summary, latency)
   local errors = summary.errors
   print(string.format(
      'RESULT {"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "status": %d, "broken": %d}',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.status,
      errors.connect + errors.read + errors.write + errors.timeout))
end
