-- Health of a VolumeSnapshot, a VolumeChain or a Hypervisor for Argo CD. It follows kstatus, which Flux and Helm
-- use, and needs no library: argocd-cm scripts get neither string nor math.
local health = {status = "Progressing", message = "Waiting for the controller"}

if obj.metadata.deletionTimestamp ~= nil then
  health.message = "Being deleted"
end

local status = obj.status
if status == nil or status.observedGeneration ~= obj.metadata.generation then
  return health  -- what the status says was said of another spec
end

local found = {}
for _, condition in ipairs(status.conditions or {}) do
  found[condition.type] = condition
end

local function is_true(type)
  return found[type] ~= nil and found[type].status == "True"
end

local function say(value, type)
  health.status = value
  if found[type] ~= nil and found[type].message ~= nil and found[type].message ~= "" then
    health.message = found[type].message
  end
  return health
end

if obj.metadata.deletionTimestamp ~= nil then
  return say("Progressing", "Ready")
end
-- One that is suspended and Ready is Healthy: Suspended would block later sync waves for ever.
if obj.spec.suspend == true and not is_true("Ready") and not is_true("Stalled") then
  return say("Suspended", "Ready")
end
if is_true("Stalled") then
  return say("Degraded", "Stalled")
end
if is_true("Reconciling") then
  return say("Progressing", "Reconciling")
end
if is_true("Ready") then
  return say("Healthy", "Ready")
end
return say("Progressing", "Ready")
