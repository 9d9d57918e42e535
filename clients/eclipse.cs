// Eclipse (ESAPI, single-file plug-in): how was the series of the open structure set judged? Not tried in a planning system.
// Eclipse imports RTSTRUCTs by DICOM (docs/connect.md); a script reads what the server says of them. OARLOCK_URL and OARLOCK_KEY name it.
using System;
using System.Linq;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Windows;
using Newtonsoft.Json.Linq;
using VMS.TPS.Common.Model.API;

namespace VMS.TPS
{
    public class Script
    {
        public void Execute(ScriptContext context)
        {
            var client = new HttpClient { BaseAddress = new Uri(Environment.GetEnvironmentVariable("OARLOCK_URL")) };
            var key = Environment.GetEnvironmentVariable("OARLOCK_KEY");
            client.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", key);

            var series = context.StructureSet.Image.Series.UID;
            var jobs = JObject.Parse(client.GetStringAsync($"/v1/jobs?state=succeeded&limit=1&series_instance_uid={series}").Result)["jobs"];
            if (!jobs.Any()) { MessageBox.Show("This series was not contoured by Oarlock."); return; }

            var report = JObject.Parse(client.GetStringAsync((string)jobs[0]["links"]["qa"]).Result);
            var lines = report["organs"].Where(organ => (string)organ["verdict"] != "green")
                .Select(organ => $"{organ["verdict"]}: {organ["reason"]}");
            MessageBox.Show(string.Join("\n", lines), $"UNAPPROVED contours: {report["verdict"]}");
        }
    }
}
