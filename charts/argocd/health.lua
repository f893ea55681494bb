-- Health of the kinds of spillway.dev, by the rules of kstatus for kinds that it does not know: Current is Healthy (Suspended
-- where the spec suspends it), Failed is Degraded, everything else is Progressing.
local health = { status = "Progressing", message = "the controller has not looked at it yet" }
if obj.metadata.deletionTimestamp ~= nil then
  health.message = "it is being deleted"
  return health
end
local status = obj.status
if status == nil or status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return health
end
local is = {}
for _, condition in ipairs(status.conditions) do
  is[condition.type] = condition
end
local ready = is["Ready"]
if ready == nil then
  return health
end
health.message = ready.message
if is["Reconciling"] ~= nil and is["Reconciling"].status == "True" then
  return health
end
if is["Stalled"] ~= nil and is["Stalled"].status == "True" then
  health.status = "Degraded"
elseif ready.status == "True" and ready.reason == "Suspended" then
  health.status = "Suspended"
elseif ready.status == "True" then
  health.status = "Healthy"
end
return health
